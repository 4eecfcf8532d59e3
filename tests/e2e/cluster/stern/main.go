// stern, with nothing of ours: its own command under its own name.
package main

import (
	"fmt"
	"os"

	"github.com/stern/stern/cmd"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

func main() {
	streams := genericclioptions.IOStreams{Out: os.Stdout, ErrOut: os.Stderr}
	stern, err := cmd.NewSternCmd(streams)
	if err == nil {
		err = stern.Execute()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
