// Command crowfly keeps files in a crowfly store and serves them over HTTP.
//
//	crowfly put data hello.txt            store a file
//	crowfly get data hello.txt            print it
//	crowfly import data ~/pictures        store a whole tree
//	crowfly serve data                    answer HTTP requests
//	crowfly stat data                     what it holds, and what could be given back
//	crowfly compact data                  give that back
//	crowfly verify data                   look for damage
//
// For compact and stat the address of a server can stand in place of the
// directory that it has open: crowfly compact http://127.0.0.1:7070. If the server
// wants a token it is taken from CROWFLY_TOKEN.
//
// What a command found goes to standard output, what it has to say to standard
// error. A file named - is standard input or output. With --json a command
// prints one JSON object a line.
//
// The exit code is 0 if all went well, 1 after an error or when verify finds damage, 2 if the command line
// was wrong, 3 if a key was not found, 4 if the condition of a put did not hold
// and 130 after SIGINT or SIGTERM. A value whose put was interrupted leaves
// nothing behind.
package main

import (
	"os"

	"github.com/crowfly/crowfly/cmd/crowfly/cli"
)

func main() { os.Exit(cli.Main()) }
