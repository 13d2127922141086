// Gocheck verifies an exported audit log with the packages by which the go command verifies its
// checksum database: golang.org/x/mod/sumdb/note and golang.org/x/mod/sumdb/tlog.
//
//	gocheck EXPORT-DIR PUB.pem... [--proof FILE]...
//
// docs/audit.md describes the files. Keys are ECDSA P-256 or Ed25519; each note has to be signed by
// one of them. Signatures, roots and proofs are checked; what the records say is not looked at, nor
// are keys/, anchors/ and SHA256SUMS.
//
// Exit status: 0 and a line of what was checked, 1 and a line of what failed, 2 usage.
package main

import (
	"fmt"
	"os"
	"strings"
)

type arguments struct {
	folder string
	keys   []string
	proofs []string
}

func main() {
	args, ok := parse(os.Args[1:])
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: gocheck EXPORT-DIR PUB.pem... [--proof FILE]...")
		os.Exit(2)
	}
	summary, err := check(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAILED", err)
		os.Exit(1)
	}
	fmt.Println(summary)
}

func parse(words []string) (args arguments, ok bool) {
	var plain []string
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "--proof" && i+1 < len(words):
			i++
			args.proofs = append(args.proofs, words[i])
		case strings.HasPrefix(words[i], "-"):
			return args, false
		default:
			plain = append(plain, words[i])
		}
	}
	if len(plain) < 2 {
		return args, false
	}
	args.folder, args.keys = plain[0], plain[1:]
	return args, true
}

func check(args arguments) (string, error) {
	x, err := readExport(args.folder, args.keys)
	if err != nil {
		return "", err
	}
	for _, step := range []func() error{x.checkRoots, x.checkInclusion, x.checkConsistency} {
		if err := step(); err != nil {
			return "", err
		}
	}
	for _, path := range args.proofs {
		if err := x.checkProof(path); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	return x.summary(len(args.proofs)), nil
}
