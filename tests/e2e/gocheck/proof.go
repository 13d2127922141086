package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// A proof is a C2SP tlog-proof with the record as extra; its checkpoint is not opened yet.
type proof struct {
	record     []byte
	index      int64
	path       tlog.RecordProof
	checkpoint []byte
}

// checkProof verifies a proof by its own checkpoint, which has to be one of this log.
func (x *export) checkProof(path string) error {
	octets, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	p, err := parseProof(string(octets))
	if err != nil {
		return err
	}
	c, err := openCheckpoint(p.checkpoint, x.origin, x.known)
	if err != nil {
		return err
	}
	if err := x.checkRoot(c); err != nil {
		return err
	}
	err = tlog.CheckRecord(p.path, c.N, c.Hash, p.index, tlog.RecordHash(p.record))
	if err != nil {
		return fmt.Errorf("not record %d of %d: %w", p.index, c.N, err)
	}
	return nil
}

func parseProof(text string) (*proof, error) {
	head, checkpoint, found := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("no tlog-proof")
	}
	p := &proof{checkpoint: []byte(checkpoint)}
	var err error
	if p.record, err = parseExtra(lines[1]); err != nil {
		return nil, err
	}
	if p.index, err = parseIndex(lines[2]); err != nil {
		return nil, err
	}
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil || hash.String() != line {
			return nil, fmt.Errorf("%q is no hash", line)
		}
		p.path = append(p.path, hash)
	}
	return p, nil
}

func parseExtra(line string) ([]byte, error) {
	text := strings.TrimPrefix(line, "extra ")
	if text == line {
		return nil, errors.New("a proof without the record")
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

func parseIndex(line string) (int64, error) {
	text := strings.TrimPrefix(line, "index ")
	index, err := strconv.ParseInt(text, 10, 64)
	if err != nil || line != "index "+strconv.FormatInt(index, 10) {
		return 0, fmt.Errorf("%q is no index", line)
	}
	return index, nil
}
