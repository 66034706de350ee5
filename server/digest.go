package server

import (
	"bytes"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"hash"
	"net/http"
	"strings"
)

// digest is what a client says that the sum of a body is, and the sum so far.
type digest struct {
	field, algorithm string
	want             []byte
	hash             hash.Hash
}

// algorithms are the sums that are known, by their names in RFC 9530. Others are
// ignored, as it says in section 2: a client may send several, for any reader.
var algorithms = map[string]func() hash.Hash{
	"md5": md5.New, "sha": sha1.New, "sha-256": sha256.New, "sha-512": sha512.New,
}

// digestFields are the fields that have digests: the body of a PUT is the content
// and the representation at once, and so the same bytes for each of them.
var digestFields = []struct {
	name string
	read func(member string) (algorithm, sum string, ok bool)
}{
	{"Content-Md5", func(member string) (string, string, bool) { return "md5", member, true }},
	{"Content-Digest", structuredDigest},
	{"Repr-Digest", structuredDigest},
	{"Digest", func(member string) (string, string, bool) { // RFC 3230
		algorithm, sum, ok := strings.Cut(member, "=")
		return strings.ToLower(algorithm), sum, ok
	}},
}

// structuredDigest reads a member such as sha-256=:AAAA...=: of a dictionary (RFC
// 8941, section 3.2), whose parameters mean nothing here.
func structuredDigest(member string) (algorithm, sum string, ok bool) {
	member, _, _ = strings.Cut(member, ";")
	algorithm, sum, ok = strings.Cut(member, "=")
	if ok = ok && len(sum) >= 2 && sum[0] == ':' && sum[len(sum)-1] == ':'; ok {
		sum = sum[1 : len(sum)-1]
	}
	return algorithm, sum, ok
}

// digestsOf returns the digests of a body that its header has, and why it can't be
// taken if one of them can't be read.
func digestsOf(h http.Header) ([]digest, *refusal) {
	var all []digest
	for _, field := range digestFields {
		lines := h[field.name]
		if len(lines) == 0 {
			continue
		}
		for member := range strings.SplitSeq(strings.Join(lines, ","), ",") {
			algorithm, sum, ok := field.read(strings.Trim(member, " \t"))
			begin, known := algorithms[algorithm]
			if ok && !known && algorithm != "" {
				continue
			}
			d := digest{field: field.name, algorithm: algorithm}
			if ok && known {
				var err error
				d.hash = begin()
				d.want, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(sum, "="))
				ok = err == nil && len(d.want) == d.hash.Size()
			}
			if !ok || !known {
				return nil, &refusal{http.StatusBadRequest, field.name + " has no digest that can be read: nothing was stored"}
			}
			all = append(all, d)
		}
	}
	return all, nil
}

// digestError says that a body is not the one that its header tells of.
type digestError struct {
	field, algorithm string
	got              []byte
}

func (e *digestError) Error() string {
	return fmt.Sprintf("the body is not the one that %s tells of: its %s is %s, nothing was stored",
		e.field, e.algorithm, base64.StdEncoding.EncodeToString(e.got))
}

// addTo adds bytes of the body to all sums.
func addTo(all []digest, p []byte) {
	for i := range all {
		all[i].hash.Write(p)
	}
}

// checkAll compares the sums of the whole body with what they should be.
func checkAll(all []digest) error {
	for _, d := range all {
		if got := d.hash.Sum(nil); !bytes.Equal(got, d.want) {
			return &digestError{d.field, d.algorithm, got}
		}
	}
	return nil
}
