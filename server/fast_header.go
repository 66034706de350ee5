package server

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// appendStatusLine appends the first line of a response.
func appendStatusLine(b []byte, status int) []byte {
	if status == http.StatusOK {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	b = append(append(b, ' '), http.StatusText(status)...)
	return append(b, "\r\n"...)
}

// dateLine is the Date of responses within one second.
type dateLine struct {
	second int64
	text   []byte
}

var lastDate atomic.Pointer[dateLine]

// appendDate appends the line that tells the time.
func appendDate(b []byte, now time.Time) []byte {
	d := lastDate.Load()
	if d == nil || d.second != now.Unix() {
		text := now.UTC().AppendFormat([]byte("Date: "), http.TimeFormat)
		d = &dateLine{now.Unix(), append(text, "\r\n"...)}
		lastDate.Store(d)
	}
	return append(b, d.text...)
}
