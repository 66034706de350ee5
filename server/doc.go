// Package server serves a crowfly store over HTTP.
//
// [Handler] works in any net/http server. [Server] is one of its own, for this
// machine only unless it has tokens, with timeouts, limits and the shortest way
// from the page cache to the socket.
//
// # Keys
//
// The key of a request is its URL path after the first slash, percent-decoded
// exactly once and never cleaned: `a//b`, `../x` and `a%2Fb` (the key a/b) are
// keys. Every key can be written as a path; a listing tells which. Paths below
// /-/ belong to the server; a key that begins so is written /%2D/...
//
//	GET, HEAD /KEY   200, 206 a range, 304, 404, 412, 416
//	PUT       /KEY   201 created, 204 replaced, 400, 403, 408, 411, 412, 413, 431, 507
//	DELETE    /KEY   204, 403, 404, 412
//	GET, HEAD /      a page of the listing: 200, 400
//	OPTIONS          204 with Allow, or to a preflight, see Browsers
//
//	GET, HEAD /-/healthz   whether somebody answers: 200
//	GET, HEAD /-/readyz    whether requests should come here: 200, 503
//	GET, HEAD /-/metrics   figures for Prometheus, if [Options].Metrics is set: 200
//	GET, HEAD /-/stats     figures of the store, see [StoreStats]: 200
//	POST      /-/compact   gives space back, see below: 200, 403, 409, 507
//
// Any of them may answer 401, 403 and 421 to whoever may not ask, see below, 400
// for a Host or a target that is none, 405 and 501 for other methods, 414
// for a key of more than 65,535 bytes, 500 for damage, which the log tells more
// about, and 503 when the store is closed.
// Errors come as application/problem+json, but for a request that net/http
// can't read, which it refuses by itself with 400, 417, 431, 501 or 505.
//
// # Requests
//
// Requests are read by the letter of RFC 9112. What two programs might divide up
// in two ways is refused with 400 and the end of the connection: a proxy before
// the server that sees a request end elsewhere would let its clients smuggle
// another one past it.
//
//   - Transfer-Encoding beside Content-Length, or in HTTP/1.0; lengths that
//     differ or are no numbers; a coding other than chunked alone is 501
//   - LF without CR, CR without LF, a field that goes on in the next line, white
//     space before a colon, an empty line before a request
//   - chunks that are not as long as they say, and fields behind a body: trailers
//     are refused, with nothing stored, rather than lost
//
// An Expect other than 100-continue is 417, and a head of more than 20 KiB 431.
// Upgrade is ignored. Under TLS, on a socket in the file system and with a Handler
// in another server nobody sees what net/http takes of the first two kinds. There a
// connection ends with a request that is chunked or of HTTP/1.0, and a proxy before
// the server must refuse the rest. HTTP/2 drops trailers that were not announced.
//
// # Values
//
// The entity tag is the version of the value, so it is strong, and never comes
// back, even if the same bytes do. If-Match, If-None-Match, If-Modified-Since,
// If-Unmodified-Since and If-Range work as in RFC 9110, section 13, with these
// exceptions. If-Match that is empty matches nothing. If-Range takes the entity tag
// only, since two values may be of the same second. A condition that can't be read is
// ignored by GET and HEAD, but a write with one is refused: it must not become a write
// without a condition. The date of a value need not be of this server's making, since
// an import keeps those of files. So one of 1970 or before, or of the future, is not
// sent and not compared, a write whose date condition can't be compared gets 412, and
// If-Modified-Since takes only the very date that was sent, or one of the future. Only
// values have conditions: a listing and what lies below /-/ have nothing to compare.
//
// A GET with a Range of bytes is answered with that part of the value, and with
// several ranges with multipart/byteranges: the parts in the order of the
// request, those that touch as one, without those behind the end of the value.
// What can't be read is ignored, as the standard allows, and the whole value
// sent. So are more than 16 ranges, and several that are larger than the value
// together, or longer by 4 KiB with what stands between the parts: a short
// request must not cost a response of many times the value.
//
// PUT stores with the value the time, Content-Type, Cache-Control,
// Content-Encoding, Content-Disposition and any headers X-Meta-NAME, of
// visible ASCII and 32 KiB together. GET and HEAD return them, the names in
// the form of net/http: X-Meta-Some-Name. A value that comes without a
// Content-Type gets the one that goes with the extension of its key, see
// [ContentType]; if there is none it is application/octet-stream.
//
// # Writing
//
// The body of a PUT has a Content-Length or is chunked, and may have up to
// [Options].MaxBody bytes. A small one is held in memory until all of it has
// come, a large one goes to a file as it comes, see db.DB.PutReader. Nothing
// is stored, and nothing stays behind, if it ends early.
//
// A body is compared with what Content-MD5, Content-Digest, Repr-Digest (RFC 9530)
// and Digest (RFC 3230) say of it, in md5, sha, sha-256 and sha-512. The answer is
// 400, with nothing stored, if one of them differs or can't be read. Digests in
// other algorithms are ignored, and trailers refused.
//
// What can be refused without the body is refused before it is read, so a
// client with a large one should send Expect: 100-continue. A connection goes
// on after a refusal if the body that is left is short, and ends otherwise.
//
// Conditions are judged twice: before the body is read, and in one step with
// the write, so of all clients that write under the same one at the same moment
// a single one succeeds and the others get 412:
//
//	If-None-Match: *      create it, if it is not there
//	If-Match: ETAG        replace or delete this very version
//
// Two forms refuse more than the standard asks for. If-Match: * for a PUT and
// If-Unmodified-Since hold only as long as the value is the one that was there
// when the request came: if it is replaced while the body is coming the answer
// is 412, though the new one might do as well.
//
// # Listing
//
// GET / lists keys in the order of their bytes. All parameters are optional:
//
//	prefix     only keys that begin so
//	delimiter  keys that have it behind the prefix are rolled up, see below
//	start      the first key that may be listed, included
//	limit      how many, 1 to 1000, which is the default
//
// A page may have fewer than limit keys, also if more follow. Whether more
// follow is told by a reference to the next page, relative to the request's
// URL: "next" in JSON, and a Link header. It is to be taken as it is: it begins
// between two keys, and names a key that is too long for that by a hash in the
// parameter after. If that key is gone the answer is 410. A prefix and a delimiter of
// more than 6 KiB as they are encoded are refused. A key that is not UTF-8 is exact in
// "path", the URL path to GET it, but not in "key".
//
//	{"keys":[{"key":"a b","path":"/a%20b","size":3,"etag":"\"...\"",
//	  "content_type":"text/plain","modified":"2026-01-02T03:04:05Z"}],
//	  "next":"?limit=1&start=c"}
//
// With a delimiter, all keys that are the same up to the first one behind the
// prefix are listed as one entry in "prefixes", which ends with the delimiter.
// It counts as one of limit, and costs no more than a key however many it
// stands for. Its path is what would be the path of a key. Without the first
// slash it is, as it is, the prefix to ask for what lies below:
//
//	GET /?delimiter=/&prefix=photos/
//
//	{"keys":[...],"prefixes":[{"prefix":"photos/new year/",
//	  "path":"/photos/new%20year/"}]}
//
// A client that accepts text/plain, and no JSON, gets the path of each key on
// a line, in order, and of each prefix, which is told from a key by its end:
// no key that is listed has the delimiter behind the prefix. Each page is one
// moment of the store; two pages may be two.
//
// # Space
//
// POST /-/compact gives back all space that can be given back now, at full
// speed, while reads and writes go on. The answer is a line of JSON five times a
// second at most, and at the end one that says what came of it, see
// [CompactLine]. The status is 200 by then, so also a failure is a last line.
//
//	{"done":1048576,"total":8388544,"written":524288}
//	{"bytes_before":8388608,"bytes_after":2097216,"live_bytes":2097152,...}
//	{"error":"no space left for writing"}
//
// There is one at a time, and others get 409. It ends with the request, so also
// when the client goes away, and with [Server.Shutdown]; what is done by then
// stays done. A store that is open for reading only answers 403. In another
// server these paths are for whoever gets as far as the [Handler].
//
// # Health
//
// GET /-/healthz answers 200 as long as there is somebody who answers; who gets no
// answer may start the process anew. GET /-/readyz answers 200 as long as the
// store is of use, and else 503 with the reason in a line of text: after the
// beginning of [Server.Shutdown], when the store is closed, and when it takes no
// more writes until it is opened again, see db.DB.Health. In the last case reads
// go on, and the log says what has happened. A full disk is no such reason,
// since it passes and deletes work. Neither writes to the store or waits for it.
//
// # Metrics
//
// [Handler.Metrics] has the figures in the text format of Prometheus, version
// 0.0.4. They are for those who run a server, so [Server.ServeMetrics] serves them
// on a listener of their own, beside /-/healthz and /-/readyz, and goes on with
// it while Shutdown waits for requests. Counters begin at 0 with the handler, or
// the store. Units are bytes and seconds.
//
//	crowfly_build_info                      version, go_version, os, arch
//	crowfly_ready                           1 if /-/readyz answers 200
//	crowfly_requests_total                  by method and class of the status
//	crowfly_request_duration_seconds        histogram, by method
//	crowfly_open_connections                by path: fast, nethttp; of a Server only
//	crowfly_connection_waits_total          times that new ones had to wait, see Limits
//	crowfly_in_flight_bytes                 of memory for uploads and listings
//	crowfly_sent_bytes_total                of values, by path: mapped, sendfile, copied
//	crowfly_copied_bytes_total              by reason: http2, tls, wrapped, buffered
//	crowfly_sendfile_..., crowfly_aborted_bodies_total,
//	crowfly_fast_requests_total, crowfly_handed_over_connections_total
//	                                        as in [Stats]
//	crowfly_process_cpu_seconds_total       by mode: user, system
//	crowfly_process_page_faults_total       by kind: minor, major
//	crowfly_process_context_switches_total  by kind: voluntary, involuntary
//	crowfly_process_mappings                by state: live, retired; and their limit
//	crowfly_store_...                       what there is, is held and was written
//	crowfly_compaction_...                  what compaction did, and its backlog
//
// The time of a request goes from the end of its head until the kernel has the last
// byte of the answer, or net/http if that keeps it back, with the body if there is
// one. What the system does not tell is missing, as is compaction of a store that
// is open for reading only, and all that there is of a closed one.
//
// # Access log
//
// [Options].AccessLog gets a line for each request that was answered, after the
// answer: "request" with these attributes.
//
//	method, path, status   path is that of the key in a listing, or else as it
//	                       came, always without the query; status is 0 if no
//	                       answer came of it
//	bytes                  of the body that were sent
//	duration               as in the metrics
//	remote                 address of the client
//	sent                   how the body left: mapped, sendfile, copied:REASON, made
//	                       for this answer, or "" if there was none
//	aborted                whether there should have been more of it
//
// A request waits for the line of the one before it on its connection. What
// net/http refuses by itself, and what comes by ServeMetrics to /-/metrics, has none.
//
// # The send path
//
// A body leaves without a copy in user space:
//
//	below 16 KiB   writev(header, slice of the mapping)         1 system call
//	from 16 KiB    send(header, MSG_MORE), sendfile(offset)     2, one more for every 4 MiB
//
// Of several ranges each part leaves so, with its own header, and their end with
// a write of its own.
//
// CPU of the sending alone, in microseconds, for values in the page cache (2
// cores, Linux 6.18, loopback, 1 GiB of values):
//
//	size       1K     4K     8K     16K    32K    64K    1M
//	writev     3.25   3.39   3.71   4.33   6.18   8.72   68.5
//	sendfile   3.59   3.78   3.63   3.91   4.39   5.96   55.4
//
// The offset is explicit because all responses from one segment share its
// descriptor. The sendfile of Go's own io.Copy uses the position of the
// descriptor, which two responses would move for each other, and is silently
// not used for an io.SectionReader, so [http.ServeContent] would not do.
//
// net/http writes headers by itself, before the body and with a system call
// of its own. A Server's connection keeps the header back until the body is
// there, see conn.go. The value is held until the last byte has left: one
// segment, or the file of a large value. One of more than 1 MiB is listed among
// the open handles of the store meanwhile.
//
// The bytes are verified on their first use, as the options of the store say.
// A value of up to 1 MiB is verified before the header is written, and of a
// larger one the first 4 MiB of what is asked for; if they are damaged the
// answer is 500. Every further 4 MiB are verified just before they leave, so
// that the first byte need not wait until gigabytes have been read. If they are
// damaged the connection is cut off.
//
// # The fast path
//
// net/http takes several times as long for a request as the kernel does to send
// a small value. So a [Server] reads the requests of a new connection by itself,
// and answers those that are plain without net/http. For GET and HEAD that takes
// one read, one writev and no allocation. What is plain is a white list:
//
//   - HTTP/1.1, and GET, HEAD, or PUT with a Content-Length of up to 64 KiB
//   - a path that is a key, of the characters of RFC 3986, without a query
//   - a head of at most 8 KiB whose lines end with CR LF, of visible ASCII
//   - one Host, a loopback one if there are no tokens, and otherwise header
//     fields that are known to mean nothing here or are implemented, each of the
//     latter once at most
//   - a token that is good for it, if there are tokens
//
// At the first request that is anything else the connection is handed over to
// net/http, for good, with all bytes that were not answered. Nothing is refused
// on the fast path for the way it is written: what is malformed gets the answer
// of net/http, and so does a body that is not there within a second.
//
// Both ways share what decides about an answer: conditions, ranges, headers,
// errors, statistics; see answer.go. Their answers are the same byte for byte but
// for the Date, which a test compares on thousands of requests. Requests that
// came together are answered in order. Timeouts and limits are the same, and
// Shutdown treats connections alike.
//
// On Linux a connection that rests has no goroutine. There is a loop for each
// processor, which is an epoll instance with connections, and one goroutine that
// leads it: it takes all connections on which something has come and answers one
// after the other. What might keep it waiting is a client that does not read, a
// PUT, a value that nobody has verified yet, one that has to come from disk or is
// of more than 1 MiB, the log, and the way to net/http. Just before, it has another
// goroutine lead the loop, and goes on with that connection alone, until it can
// give it back. Elsewhere a goroutine waits for each connection.
//
// To touch a page of a mapping that is not in memory holds up one of the few
// processors that goroutines share, for as long as the disk takes. So the place of a
// record, which the index in memory knows, is asked about before the key is compared
// there. A record that is not in memory, or was not verified yet, is brought in with a
// system call first, on both ways; see db.DB.LendResident. What the server sends and
// does not read need not be there: the system calls that send it wait for it. Whoever
// has to copy it, under TLS for instance, does not ask; a listing touches what it lists.
//
//	head.go         reads a head, or doubts
//	fast.go         a connection: read, answer, hand over
//	fast_listen.go  all of them, and the listener in front of net/http
//	fast_put.go     PUT
//	framing.go      what net/http is shown of the bytes of a connection
//	stream.go       the socket of a connection, and how to wait for it
//	loop_linux.go   loops
//
// [Stats].Fast counts what was answered so, and HandedOver the connections that
// net/http took over.
//
// # What takes it away
//
// [Stats] counts bytes by the way they left, and copies by their reason.
//
//   - TLS and HTTP/2, in which bytes are encrypted or framed in user space.
//   - A ResponseWriter without ReadFrom around net/http's, as much middleware
//     has, or a connection that is not a *net.TCPConn.
//   - Another net/http server, for values below 16 KiB: they are copied into
//     its buffer, to leave in one write with the header. Above, the header
//     takes a write of its own and the value goes by sendfile.
//   - A platform without sendfile at an offset, which is any but Linux, or a
//     file system without it: the mapping is written to the socket.
//
// # Limits
//
// A Server gives a client 5 seconds for the header of a request, of at most 16
// KiB (net/http adds 4 KiB), and closes a connection idle for 60 seconds. The
// header has the key: one that is too long for it, stored by the program
// itself, can't be reached, though it is listed. Bodies in either direction must move
// at [Options].MinRate, or one piece in 30 seconds if that is longer; a piece is 4 MiB
// of a response and 1 MiB of an upload. While more than half of the connections are
// taken the rate is 64 KiB a second at least. A connection that ends with a refusal is
// half-closed, and what comes is read and dropped for 30 seconds at most, so that a
// client which still sends can read the answer. The deadlines of a Handler replace the
// ReadTimeout and WriteTimeout of the server it runs in, unless something between them
// lets none through.
//
// An upload takes as much memory as has come of it, and 1 MiB to begin with, up
// to the size from which the store writes to a file (db.Options.BlobSize), and
// then no more than 1 MiB. Where its length is known disk space is set aside at
// once for a large one, so that a full disk is known before the body has come.
//
// All uploads together may take [Options].MaxInFlight bytes of memory: each as much as has come of it, 1 MiB at
// most of what is only announced, and 1 MiB in all of what goes to a file. Beyond
// that the answer is 503 with Retry-After. A listing takes 1 MiB while it is made,
// and what it has until that is sent.
//
// A Server has [Options].MaxConns connections at once. New ones wait in the kernel
// then, first come, first served, until others have ended, which the time-outs
// see to; those that are open go on. So it is overload that these limits hold
// against, and clients that stall, but not one who opens thousands of connections
// again and again, or asks for something on each of them now and then, for whom
// others wait. A connection of HTTP/2 counts as one, and
// may have 250 requests under way.
//
// # Authentication
//
// Without [Options].Tokens everybody who can connect may do everything, so a
// [Server] listens on loopback addresses only. With them it listens anywhere, and
// every request needs one of them, also below /-/, whether there is anything at
// its path or not:
//
//	Authorization: Bearer 6f1dTjJ1MuaYwq3h
//
// A token is for reading, which is GET, HEAD and OPTIONS, or for everything. One
// that is missing, wrong or not alone is answered with 401 and WWW-Authenticate:
// Bearer, one that does not suffice with 403, before the body is read. GET and
// HEAD of /-/healthz and /-/readyz, with which others watch a server, need none.
//
// Tokens are read by [ReadTokens] from a file, or by [ParseTokens]. There are no
// users and no rights below a prefix, and whoever can listen on the network can
// take a token from a connection that is not encrypted. They are kept as SHA-256
// sums, and what a client sends is compared with all of them in constant time.
// The log never has them. A Handler in another server asks for them as well.
//
// # Encryption
//
// With [Options].TLS a Server encrypts its connections, and [LoadTLS] follows a
// certificate that is replaced in its files. They are all net/http's then, in
// HTTP/1.1 or HTTP/2, and every byte of a value is copied at least twice: see
// [Stats].Copied for how many. A program before the server that encrypts leaves it
// the fast path and sendfile.
//
// # Browsers
//
// Any page that a browser shows may send requests to this machine. A [Server]
// without tokens answers 421 unless the Host is localhost, a name below it or a loopback
// address, or there is none: else a page could have its own name resolved to
// 127.0.0.1, and read the store as a part of its site. A proxy before it must
// ask for such a host. With tokens any Host will do, since such a page has none.
// A [Handler] in another server leaves all that to it.
//
// Stored values come with X-Content-Type-Options: nosniff, and all but PDF,
// video and audio, which browsers would not show then, with
// Content-Security-Policy: sandbox, so that a stored page can be looked at but
// its scripts do not run.
// Images, sound and films are shown.
//
// Pages of the sites in [Options].AllowOrigins may ask, and read every answer but
// what net/http refuses by itself: it has Access-Control-Allow-Origin, and names the
// fields that they may read. A preflight is answered without a token, since it
// has none, and allows GET, HEAD, PUT and DELETE with all fields that mean something
// here; cookies are never asked for. All answers vary with Origin then. Without tokens there are no such sites: any page there could do
// everything.
//
// POST /-/compact answers 403 if a browser says that a page of another site has
// made the request.
package server
