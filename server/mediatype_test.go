package server

import (
	"fmt"
	"mime"
	"strings"
	"testing"

	"github.com/crowfly/crowfly/db"
)

func TestContentType(t *testing.T) {
	for name, want := range map[string]string{
		"photos/1.jpg": "image/jpeg", "1.JPG": "image/jpeg", ".png": "image/png", "a.b/c": "", "a.jpg/": "", "a.": "", "a": "", "": "",
		"film/0001.ts": "video/mp2t", "film/index.m3u8": "application/vnd.apple.mpegurl", "film/a.mpd": "application/dash+xml", "0.m4s": "video/iso.segment",
		"world.pmtiles": "application/vnd.pmtiles", "7/66/42.mvt": "application/vnd.mapbox-vector-tile", "a.geojson": "application/geo+json",
		"a.wasm": "application/wasm", "a.avif": "image/avif", "a.webp": "image/webp", "a.woff2": "font/woff2", "a.mp4": "video/mp4", "a.tiff": "image/tiff",
		"a.html": "text/html; charset=utf-8", "a.mjs": "text/javascript; charset=utf-8", "a.txt": "text/plain; charset=utf-8", "a.md": "text/markdown; charset=utf-8",
		"a.svg": "image/svg+xml", "a.pdf": "application/pdf", "a.json": "application/json", "a.tar.gz": "application/gzip", "a.br": "",
		"a." + strings.Repeat("x", 60_000): "", "a.jp\xffg": "", "a.jpg\r\nX-Evil: 1": "",
	} {
		if got := ContentType(name); got != want {
			t.Errorf("%.40q: %q, want %q", name, got, want)
		}
	}
}

// TestContentTypeTable: each type can be sent, and each extension be found.
func TestContentTypeTable(t *testing.T) {
	for ext, contentType := range typesByExtension {
		if _, _, err := mime.ParseMediaType(contentType); err != nil || !visible(contentType) {
			t.Errorf("%s: %q: %v", ext, contentType, err)
		}
		if ext != strings.ToLower(ext) || len(ext) >= maxExtension {
			t.Errorf("%q is never found", ext)
		}
	}
}

// TestPutTakesTypeFromKey: a value put without a type gets that of its key, and one
// put with a type keeps it, on both roads and in a listing.
func TestPutTakesTypeFromKey(t *testing.T) {
	for _, slow := range []bool{false, true} {
		_, addr := start(t, openStoreIn(t, t.TempDir(), &db.Options{BlobSize: 100_000}), nil, func(s *Server) { s.slow = slow })
		c := dial(t, addr)
		for _, n := range []int{5, fastBody + 1, 100_001} {
			for path, want := range map[string]string{"/photos/1.jpg": "image/jpeg", "/%61.t%73": "video/mp2t", "/photos": defaultType} {
				t.Run(fmt.Sprintf("slow %v/%d%s", slow, n, path), func(t *testing.T) {
					body := strings.Repeat("x", n)
					c.do("PUT", path, body)
					checkHeader(t, c.do("HEAD", path, ""), "Content-Type", want)
					c.do("PUT", path, body, "Content-Type:")
					checkHeader(t, c.do("HEAD", path, ""), "Content-Type", want)
					c.do("PUT", path, body, "Content-Type: x/y")
					checkHeader(t, c.do("HEAD", path, ""), "Content-Type", "x/y")
				})
			}
		}
	}
}
