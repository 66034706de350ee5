package segment

import (
	"fmt"
	"strconv"
	"strings"
)

// ID numbers the files of a store. IDs rise and are never reused, not even
// after a crash, so a leftover can't be mistaken for its successor.
type ID uint64

// Names of the files in a store directory.
const (
	LockName       = "LOCK"
	manifestPrefix = "MANIFEST-"
	segmentSuffix  = ".seg"
	blobSuffix     = ".blob"
	hintSuffix     = ".hint"
	tempPrefix     = "tmp-"
)

// FileName is the name of the segment file.
func (id ID) FileName() string { return fmt.Sprintf("%016x%s", uint64(id), segmentSuffix) }

// ParseFileName is the inverse of FileName; ok is false for any other name.
func ParseFileName(name string) (id ID, ok bool) { return parseName(name, segmentSuffix) }

// BlobName is the name of the blob file. Segments and blobs share one series
// of numbers.
func (id ID) BlobName() string { return fmt.Sprintf("%016x%s", uint64(id), blobSuffix) }

// ParseBlobName is the inverse of BlobName.
func ParseBlobName(name string) (id ID, ok bool) { return parseName(name, blobSuffix) }

// HintName is the name of the segment's hint.
func (id ID) HintName() string { return fmt.Sprintf("%016x%s", uint64(id), hintSuffix) }

// ParseHintName is the inverse of HintName.
func ParseHintName(name string) (id ID, ok bool) { return parseName(name, hintSuffix) }

func parseName(name, suffix string) (id ID, ok bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	n, ok := parseHex(hex)
	return ID(n), ok
}

// ManifestName is the name of the manifest of a generation.
func ManifestName(gen uint64) string { return fmt.Sprintf("%s%016x", manifestPrefix, gen) }

// ParseManifestName is the inverse of ManifestName.
func ParseManifestName(name string) (gen uint64, ok bool) {
	hex, ok := strings.CutPrefix(name, manifestPrefix)
	if !ok {
		return 0, false
	}
	return parseHex(hex)
}

// TempName names a file that does not count until it is renamed. Open
// removes leftovers.
func TempName(what string) string { return tempPrefix + what }

// IsTempName reports whether a file is a leftover of TempName, and not
// somebody else's that happens to begin like one.
func IsTempName(name string) bool {
	what, ok := strings.CutPrefix(name, tempPrefix)
	_, isManifest := ParseManifestName(what)
	_, isBlob := ParseBlobName(what)
	_, isHint := ParseHintName(what)
	return ok && (isManifest || isBlob || isHint)
}

// maxNumber bounds the numbers in names. A store never gets near it, and a file
// with a higher one, which somebody else has made, must not use them up.
const maxNumber = 1 << 62

// parseHex takes exactly the 16 lower-case digits that names are written with,
// so that one file never goes by two names.
func parseHex(s string) (uint64, bool) {
	if len(s) != 16 || strings.ToLower(s) != s {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 64)
	return n, err == nil && n < maxNumber
}

// ParseID returns the number of a segment or a blob file; ok is false for any
// other name.
func ParseID(name string) (id ID, ok bool) {
	if id, ok := ParseFileName(name); ok {
		return id, true
	}
	return ParseBlobName(name)
}

// Files returns the numbers of the segments among names.
func Files(names []string) (ids []ID) {
	for _, name := range names {
		if id, ok := ParseFileName(name); ok {
			ids = append(ids, id)
		}
	}
	return ids
}
