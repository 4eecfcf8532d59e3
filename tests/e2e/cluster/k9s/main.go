// Package main is k9s (https://k9scli.io), pinned by go.mod, for the tests that drive it in a terminal.
package main

import (
	"github.com/derailed/k9s/cmd"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
)

func main() { cmd.Execute() }
