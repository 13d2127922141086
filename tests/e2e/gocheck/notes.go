package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const maxSignatures = 4

var originForm = regexp.MustCompile(`^[^\s+]+/tekd/audit/[1-9][0-9]*$`)

// A checkpoint is a tree that a trusted key signed.
type checkpoint struct {
	where string
	tlog.Tree
	signers []uint32
}

// originOf is the first line of a note, whose signatures were not looked at yet.
func originOf(octets []byte) (string, error) {
	origin, _, _ := strings.Cut(string(octets), "\n")
	if !originForm.MatchString(origin) {
		return "", fmt.Errorf("%q is no origin", origin)
	}
	return origin, nil
}

// openCheckpoint verifies a note and reads the tree it is over.
func openCheckpoint(octets []byte, origin string, known note.Verifiers) (*checkpoint, error) {
	n, err := note.Open(octets, known)
	if err != nil {
		return nil, err
	}
	if err := checkSignatureLines(octets, n, origin); err != nil {
		return nil, err
	}
	tree, err := parseTree(n.Text, origin)
	if err != nil {
		return nil, err
	}
	c := &checkpoint{Tree: tree}
	for _, s := range n.Sigs {
		c.signers = append(c.signers, s.Hash)
	}
	return c, nil
}

// checkSignatureLines refuses what Open takes, but our format does not: signatures under other
// names, a key twice (Open skips the second, verified or not), base64 in another form.
func checkSignatureLines(octets []byte, n *note.Note, origin string) error {
	lines := bytes.Count(octets[len(n.Text)+1:], []byte("\n"))
	all := append(append([]note.Signature{}, n.Sigs...), n.UnverifiedSigs...)
	if lines > maxSignatures || len(all) != lines {
		return fmt.Errorf("%d signature lines, %d different ones", lines, len(all))
	}
	for _, s := range all {
		if s.Name != origin {
			return fmt.Errorf("a signature under the name %q", s.Name)
		}
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return err
		}
	}
	return nil
}

// parseTree reads the three lines of a checkpoint. ParseTree cannot take them as they are: it wants
// "go.sum database tree" where ours have the origin. Size and root below it are in the same form,
// so it reads them under its own first line. What FormatTree makes of them again has to be what was
// read: there are no extension lines, which ParseTree would skip, and only one form in base64.
func parseTree(text, origin string) (tlog.Tree, error) {
	rest := strings.TrimPrefix(text, origin+"\n")
	if rest == text {
		return tlog.Tree{}, fmt.Errorf("a note of another log, not of %s", origin)
	}
	read := []byte("go.sum database tree\n" + rest)
	tree, err := tlog.ParseTree(read)
	if err != nil {
		return tlog.Tree{}, err
	}
	if !bytes.Equal(tlog.FormatTree(tree), read) {
		return tlog.Tree{}, errors.New("not in the one form of a checkpoint")
	}
	// The root of no records is another one for tlog than for RFC 6962; each log has a first record.
	if tree.N == 0 {
		return tlog.Tree{}, errors.New("a checkpoint over no records")
	}
	return tree, nil
}

// splitNotes takes checkpoints.txt apart: each note is followed by an empty line, and has another
// one before its signatures.
func splitNotes(octets []byte) ([][]byte, error) {
	gap := []byte("\n\n")
	parts := bytes.Split(octets, gap)
	if len(parts)%2 != 1 || len(parts[len(parts)-1]) != 0 {
		return nil, errors.New("a note without its end")
	}
	var notes [][]byte
	for i := 0; i+1 < len(parts); i += 2 {
		whole := append(bytes.Join(parts[i:i+2], gap), '\n')
		notes = append(notes, whole)
	}
	if len(notes) == 0 {
		return nil, errors.New("no note")
	}
	return notes, nil
}
