package server

import (
	"path"
	"strings"
)

// ContentType returns the media type that goes with the extension of a file name or
// key, or "" if the extension is not known. The table is part of this package, so the
// answer is the same on every machine. Upper and lower case are equal, and only the
// last extension counts: a.tar.gz is application/gzip.
func ContentType(name string) string {
	ext := path.Ext(name)
	if ext == "" || len(ext) > maxExtension {
		return ""
	}
	return typesByExtension[strings.ToLower(ext[1:])]
}

// maxExtension is above the length of the longest extension in the table.
const maxExtension = 16

// typesByExtension has a line for each media type. Text has its encoding, which is
// UTF-8 for nearly all files of today; XML tells its own.
var typesByExtension = extensions(map[string]string{
	// Images
	"image/apng":               "apng",
	"image/avif":               "avif",
	"image/bmp":                "bmp",
	"image/gif":                "gif",
	"image/heic":               "heic",
	"image/heif":               "heif",
	"image/jp2":                "jp2",
	"image/jpeg":               "jpg jpeg jpe jfif",
	"image/jxl":                "jxl",
	"image/ktx2":               "ktx2",
	"image/png":                "png",
	"image/svg+xml":            "svg",
	"image/tiff":               "tif tiff",
	"image/vnd.microsoft.icon": "ico",
	"image/webp":               "webp",
	"image/x-adobe-dng":        "dng",

	// Video, sound and what goes with them
	"application/dash+xml":          "mpd",
	"application/ttml+xml":          "ttml",
	"application/vnd.apple.mpegurl": "m3u8 m3u",
	"application/x-subrip":          "srt",
	"audio/aac":                     "aac",
	"audio/flac":                    "flac",
	"audio/midi":                    "mid midi",
	"audio/mp4":                     "m4a",
	"audio/mpeg":                    "mp3",
	"audio/ogg":                     "ogg oga opus",
	"audio/wav":                     "wav",
	"audio/webm":                    "weba",
	"text/vtt; charset=utf-8":       "vtt",
	"video/3gpp":                    "3gp",
	"video/iso.segment":             "m4s",
	"video/mp2t":                    "ts m2ts mts",
	"video/mp4":                     "mp4 m4v",
	"video/mpeg":                    "mpg mpeg",
	"video/ogg":                     "ogv",
	"video/quicktime":               "mov",
	"video/webm":                    "webm",
	"video/x-matroska":              "mkv",
	"video/x-msvideo":               "avi",

	// Pages and their parts
	"application/manifest+json":      "webmanifest",
	"application/rss+xml":            "rss",
	"application/atom+xml":           "atom",
	"application/wasm":               "wasm",
	"application/xhtml+xml":          "xhtml",
	"font/collection":                "ttc",
	"font/otf":                       "otf",
	"font/ttf":                       "ttf",
	"font/woff":                      "woff",
	"font/woff2":                     "woff2",
	"text/css; charset=utf-8":        "css",
	"text/html; charset=utf-8":       "html htm",
	"text/javascript; charset=utf-8": "js mjs",

	// Maps and models
	"application/geo+json":                 "geojson",
	"application/geopackage+sqlite3":       "gpkg",
	"application/gpx+xml":                  "gpx",
	"application/vnd.google-earth.kml+xml": "kml",
	"application/vnd.google-earth.kmz":     "kmz",
	"application/vnd.mapbox-vector-tile":   "mvt",
	"application/vnd.pmtiles":              "pmtiles",
	"application/x-protobuf":               "pbf",
	"model/gltf+json":                      "gltf",
	"model/gltf-binary":                    "glb",
	"model/stl":                            "stl",

	// Data
	"application/cbor":                         "cbor",
	"application/json":                         "json map topojson",
	"application/ld+json":                      "jsonld",
	"application/sql":                          "sql",
	"application/toml":                         "toml",
	"application/vnd.apache.arrow.file":        "arrow",
	"application/vnd.apache.parquet":           "parquet",
	"application/vnd.sqlite3":                  "sqlite sqlite3",
	"application/x-ndjson":                     "ndjson jsonl",
	"application/xml":                          "xml xsd",
	"application/yaml":                         "yaml yml",
	"text/calendar; charset=utf-8":             "ics",
	"text/csv; charset=utf-8":                  "csv",
	"text/tab-separated-values; charset=utf-8": "tsv",
	"text/vcard; charset=utf-8":                "vcf",

	// Text and documents
	"application/epub+zip":                            "epub",
	"application/msword":                              "doc",
	"application/pdf":                                 "pdf",
	"application/postscript":                          "ps eps",
	"application/rtf":                                 "rtf",
	"application/vnd.ms-excel":                        "xls",
	"application/vnd.ms-powerpoint":                   "ppt",
	"application/vnd.oasis.opendocument.presentation": "odp",
	"application/vnd.oasis.opendocument.spreadsheet":  "ods",
	"application/vnd.oasis.opendocument.text":         "odt",
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         "xlsx",
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   "docx",
	"text/markdown; charset=utf-8":                                              "md markdown",
	"text/plain; charset=utf-8":                                                 "txt text log",

	// Archives and programs
	"application/gzip":                        "gz tgz",
	"application/java-archive":                "jar",
	"application/vnd.android.package-archive": "apk",
	"application/vnd.debian.binary-package":   "deb",
	"application/vnd.rar":                     "rar",
	"application/x-7z-compressed":             "7z",
	"application/x-bzip2":                     "bz2",
	"application/x-iso9660-image":             "iso",
	"application/x-rpm":                       "rpm",
	"application/x-tar":                       "tar",
	"application/x-xz":                        "xz",
	"application/zip":                         "zip",
	"application/zstd":                        "zst",
})

// extensions turns lists of extensions by type into types by extension.
func extensions(byType map[string]string) map[string]string {
	types := make(map[string]string, 2*len(byType))
	for contentType, list := range byType {
		for _, ext := range strings.Fields(list) {
			types[ext] = contentType
		}
	}
	return types
}
