package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// nginxConfig is what is advised for many small static files, without a log.
const nginxConfig = `
daemon off;
%s
worker_processes %d;
worker_rlimit_nofile %d;
pid nginx.pid;
error_log error.log;
events {
	worker_connections 4096;
}
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_timeout 1h;
	keepalive_requests 1000000000;
	open_file_cache max=10000 inactive=1h;
	open_file_cache_valid 1h;
	default_type application/octet-stream;
	client_body_temp_path body;
	fastcgi_temp_path fastcgi;
	proxy_temp_path proxy;
	scgi_temp_path scgi;
	uwsgi_temp_path uwsgi;
	server {
		listen %s%s;
		root "%s";
	}
}
`

func (x *contest) startNginx(workers int, cpus []int) (*contestant, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	prefix, err := os.MkdirTemp(x.scratch, "nginx-")
	if err != nil {
		return nil, err
	}
	user, shared := "", ""
	if os.Geteuid() == 0 {
		user = "user root;" // the directory is the user's alone
	}
	if workers > 1 {
		shared = " reuseport" // else one of them may get all connections
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(nginxConfig, user, workers, files.Max, address, shared, x.files)
	if err := os.WriteFile(filepath.Join(prefix, "nginx.conf"), []byte(text), 0o666); err != nil {
		return nil, err
	}
	log := filepath.Join(prefix, "error.log")
	cmd := exec.Command(x.nginx, "-p", prefix, "-c", "nginx.conf", "-e", log)
	if err := startOn(cmd, cpus); err != nil {
		return nil, err
	}
	s := &contestant{cmd: cmd, address: address, end: func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}}
	return s, s.await(workers, log)
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// await returns when nginx has its workers and listens.
func (s *contestant) await(workers int, log string) error {
	for range 500 {
		pids, err := processes(s.cmd.Process.Pid)
		if err == nil && len(pids) == 1+workers {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	text, _ := os.ReadFile(log)
	return fmt.Errorf("no workers of nginx after a while: %s%w", text, s.end())
}
