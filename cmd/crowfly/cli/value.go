package cli

import (
	"encoding/hex"
	"time"
	"unicode/utf8"

	"github.com/crowfly/crowfly/db"
)

// jsonValue describes a value.
type jsonValue struct {
	jsonKey
	Size               int64      `json:"size"`
	Version            string     `json:"version"`
	ContentType        string     `json:"content_type,omitempty"`
	CacheControl       string     `json:"cache_control,omitempty"`
	ContentEncoding    string     `json:"content_encoding,omitempty"`
	ContentDisposition string     `json:"content_disposition,omitempty"`
	Modified           time.Time  `json:"modified,omitzero"`
	Checksums          []jsonPair `json:"checksums,omitempty"` // values in hexadecimal
	User               []jsonPair `json:"user,omitempty"`      // in the order they were given
}

// jsonPair is a name with its value.
type jsonPair struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Base64 []byte `json:"value_base64,omitempty"` // if it is not UTF-8
}

func newJSONValue(key string, size int64, version db.Version, meta *db.Metadata) jsonValue {
	j := jsonValue{
		jsonKey:            newJSONKey(key),
		Size:               size,
		Version:            version.String(),
		ContentType:        meta.ContentType,
		CacheControl:       meta.CacheControl,
		ContentEncoding:    meta.ContentEncoding,
		ContentDisposition: meta.ContentDisposition,
		Modified:           meta.ModTime,
	}
	for _, p := range meta.Checksums {
		j.Checksums = append(j.Checksums, jsonPair{Name: p.Name, Value: hex.EncodeToString([]byte(p.Value))})
	}
	for _, p := range meta.User {
		j.User = append(j.User, newJSONPair(p))
	}
	return j
}

func newJSONPair(p db.Pair) jsonPair {
	if !utf8.ValidString(p.Value) {
		return jsonPair{Name: p.Name, Base64: []byte(p.Value)}
	}
	return jsonPair{Name: p.Name, Value: p.Value}
}
