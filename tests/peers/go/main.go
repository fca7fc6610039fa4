// The peers on the SDK for Go, client and server in one program: see ../README.md for their command lines.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	roles := map[string]func([]string) error{"client": client, "server": server, "idle": idle}
	if len(os.Args) < 2 || roles[os.Args[1]] == nil {
		fail(fmt.Errorf("usage: peer client|server|idle OPTIONS"))
	}
	if err := roles[os.Args[1]](os.Args[2:]); err != nil {
		fail(err)
	}
}

// idle is there and does nothing: what is done for the first process of a program is done when the next comes.
func idle([]string) error {
	time.Sleep(time.Hour)
	return nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
