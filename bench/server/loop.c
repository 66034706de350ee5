//go:build ignore

// The least that a server can do: one thread, one epoll instance, all files
// open, those of small objects mapped, and every header made beforehand. It
// takes a request to be what the benchmark sends, "GET /SIZE/NUMBER HTTP/1.1"
// and more up to an empty line, and answers nothing else.
//
//	loop DIR SIZE:COUNT...
//
// serves the files DIR/SIZE/NUMBER, writes its address and ends with its
// standard input. The first line keeps it from Go.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { sendfile_min = 16 << 10, max_kinds = 16, events = 256 };

struct object {
	int fd;
	char *map; // only below sendfile_min
};

struct kind { // of objects: those of one size
	long size, count;
	char header[128];
	long header_size;
	struct object *objects;
};

struct conn {
	int fd;
	int blocked; // epoll says when it can be written to
	int have;    // bytes of in
	struct kind *kind;
	struct object *object;
	long header_left, left; // of the answer under way
	char in[4096];
};

static struct kind kinds[max_kinds];
static int kind_count, epoll;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void open_objects(const char *dir, struct kind *k)
{
	k->header_size = snprintf(k->header, sizeof k->header, "HTTP/1.1 200 OK\r\nContent-Length: %ld\r\n\r\n", k->size);
	k->objects = calloc(k->count, sizeof *k->objects);
	for (long i = 0; i < k->count; i++) {
		char path[4096];
		snprintf(path, sizeof path, "%s/%ld/%ld", dir, k->size, i);
		struct object *o = &k->objects[i];
		if ((o->fd = open(path, O_RDONLY)) < 0)
			die(path);
		if (k->size < sendfile_min && (o->map = mmap(0, k->size, PROT_READ, MAP_SHARED, o->fd, 0)) == MAP_FAILED)
			die("mmap");
	}
}

static int listen_on_loopback(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (s < 0 || bind(s, (void *)&a, n) || listen(s, 1024) || getsockname(s, (void *)&a, &n))
		die("listen");
	printf("127.0.0.1:%d\n", ntohs(a.sin_port));
	fflush(stdout);
	return s;
}

static void watch(int how, int fd, unsigned what, void *who)
{
	struct epoll_event e = {.events = what, .data.ptr = who};
	if (epoll_ctl(epoll, how, fd, &e))
		die("epoll_ctl");
}

static void accept_all(int listener)
{
	int fd, one = 1;
	while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
		struct conn *c = calloc(1, sizeof *c);
		c->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		watch(EPOLL_CTL_ADD, fd, EPOLLIN, c);
	}
}

static void drop(struct conn *c)
{
	close(c->fd);
	free(c);
}

// number reads digits up to the byte that ends them.
static long number(const char **p, char end)
{
	long n = 0;
	for (; **p != end; ++*p) {
		if (**p < '0' || **p > '9')
			return -1;
		n = 10 * n + **p - '0';
	}
	++*p;
	return n;
}

// find makes the object of a request, which a zero ends, the one to be sent.
static int find(struct conn *c, const char *request)
{
	const char *p = request + 5;
	if (strncmp(request, "GET /", 5))
		return 0;
	long size = number(&p, '/'), i = size < 0 ? -1 : number(&p, ' ');
	for (struct kind *k = kinds; k < kinds + kind_count; k++)
		if (k->size == size && i >= 0 && i < k->count) {
			c->kind = k, c->object = &k->objects[i];
			c->header_left = k->header_size, c->left = k->size;
			return 1;
		}
	return 0;
}

// push sends once. It returns what that returned.
static long push(struct conn *c)
{
	struct kind *k = c->kind;
	char *header = k->header + k->header_size - c->header_left;
	long n;
	if (c->object->map) {
		struct iovec v[2] = {{header, c->header_left}, {c->object->map + k->size - c->left, c->left}};
		struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
		n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
	} else if (c->header_left) {
		n = send(c->fd, header, c->header_left, MSG_MORE | MSG_NOSIGNAL);
	} else {
		off_t off = k->size - c->left;
		n = sendfile(c->fd, c->object->fd, &off, c->left);
	}
	if (n == 0)
		errno = EIO; // the file is shorter than it was
	if (n <= 0)
		return n;
	long of_header = n < c->header_left ? n : c->header_left;
	c->header_left -= of_header;
	c->left -= n - of_header;
	return n;
}

// answer sends what is left of an answer. It returns 0 if the connection is no more.
static int answer(struct conn *c)
{
	while (c->header_left || c->left)
		if (push(c) <= 0) {
			if (errno != EAGAIN)
				return 0;
			if (!c->blocked)
				watch(EPOLL_CTL_MOD, c->fd, EPOLLOUT, c);
			c->blocked = 1;
			return 1;
		}
	if (c->blocked)
		watch(EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
	c->blocked = 0;
	return 1;
}

// serve takes what epoll has found. It returns 0 if the connection is no more.
static int serve(struct conn *c)
{
	if (c->blocked) {
		if (!answer(c))
			return 0;
	} else {
		long n = read(c->fd, c->in + c->have, sizeof c->in - 1 - c->have);
		if (n <= 0)
			return n < 0 && errno == EAGAIN;
		c->have += n;
	}
	while (!c->blocked) {
		c->in[c->have] = 0;
		char *end = strstr(c->in, "\r\n\r\n");
		if (!end)
			return 1;
		if (!find(c, c->in) || !answer(c))
			return 0;
		c->have -= end + 4 - c->in;
		memmove(c->in, end + 4, c->have);
	}
	return 1;
}

static void loop(int listener)
{
	static int input;
	watch(EPOLL_CTL_ADD, listener, EPOLLIN, 0);
	watch(EPOLL_CTL_ADD, 0, EPOLLIN, &input);
	for (;;) {
		struct epoll_event list[events];
		int n = epoll_wait(epoll, list, events, -1);
		for (int i = 0; i < n; i++) {
			struct conn *c = list[i].data.ptr;
			if (c == (void *)&input)
				exit(0);
			if (!c)
				accept_all(listener);
			else if (!serve(c))
				drop(c);
		}
	}
}

int main(int argc, char **argv)
{
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 2; i < argc && kind_count < max_kinds; i++) {
		struct kind *k = &kinds[kind_count++];
		if (sscanf(argv[i], "%ld:%ld", &k->size, &k->count) != 2)
			return 2;
		open_objects(argv[1], k);
	}
	signal(SIGPIPE, SIG_IGN); // of sendfile to a client that has gone
	epoll = epoll_create1(0);
	loop(listen_on_loopback());
}
