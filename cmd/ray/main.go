// Command ray is Gray's one program: the daemon of a machine and the commands that start, stop and ask clusters.
package main

import "os"

func main() {
	os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, runNode).main(os.Args[1:]))
}
