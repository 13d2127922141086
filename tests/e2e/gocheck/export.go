package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Of the records under each checkpoint, about so many are proven to be in it.
const samples = 16

// A store has the hashes of a tree where tlog.StoredHashIndex says.
type store []tlog.Hash

func (s store) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, 0, len(indexes))
	for _, i := range indexes {
		if i < 0 || i >= int64(len(s)) {
			return nil, fmt.Errorf("hash %d of %d", i, len(s))
		}
		hashes = append(hashes, s[i])
	}
	return hashes, nil
}

// An export has what was read, and counts what was checked.
type export struct {
	origin      string
	known       note.Verifiers
	records     [][]byte
	stored      store
	checkpoints []*checkpoint // those of checkpoints.txt, in order, then the one of checkpoint
	included    int
	extended    int
}

// readExport reads everything, verifies the signatures and builds the tree.
func readExport(folder string, keys []string) (*export, error) {
	x := &export{}
	last, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return nil, err
	}
	if x.origin, err = originOf(last); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if x.known, err = readVerifiers(x.origin, keys); err != nil {
		return nil, err
	}
	if err := x.openAll(filepath.Join(folder, "checkpoints.txt"), last); err != nil {
		return nil, err
	}
	if err := x.grow(filepath.Join(folder, "audit.jsonl")); err != nil {
		return nil, fmt.Errorf("audit.jsonl: %w", err)
	}
	return x, nil
}

func (x *export) openAll(path string, last []byte) error {
	octets, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	notes, err := splitNotes(octets)
	if err != nil {
		return fmt.Errorf("checkpoints.txt: %w", err)
	}
	for i, n := range notes {
		if err := x.open(n, fmt.Sprintf("checkpoints.txt, note %d", i)); err != nil {
			return err
		}
	}
	return x.open(last, "checkpoint")
}

func (x *export) open(octets []byte, where string) error {
	c, err := openCheckpoint(octets, x.origin, x.known)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	c.where = where
	x.checkpoints = append(x.checkpoints, c)
	return nil
}

// grow builds the tree: a leaf is a line without its end.
func (x *export) grow(path string) error {
	octets, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := bytes.Split(octets, []byte("\n"))
	if len(lines[len(lines)-1]) != 0 {
		return errors.New("the last line has no end")
	}
	x.records = lines[:len(lines)-1]
	for i, record := range x.records {
		hashes, err := tlog.StoredHashes(int64(i), record, x.stored)
		if err != nil {
			return err
		}
		x.stored = append(x.stored, hashes...)
	}
	return nil
}

// checkRoots compares each signed root with that of the records; the last one is over all of them.
func (x *export) checkRoots() error {
	for i, c := range x.checkpoints {
		if i > 0 && c.N < x.checkpoints[i-1].N {
			return fmt.Errorf("%s: size %d after %d", c.where, c.N, x.checkpoints[i-1].N)
		}
		if err := x.checkRoot(c); err != nil {
			return fmt.Errorf("%s: %w", c.where, err)
		}
	}
	end := x.checkpoints[len(x.checkpoints)-1]
	newest := x.checkpoints[len(x.checkpoints)-2]
	if newest.Tree != end.Tree {
		return errors.New("checkpoints.txt does not end with the tree of checkpoint")
	}
	if end.N != int64(len(x.records)) {
		return fmt.Errorf("checkpoint: over %d records, there are %d", end.N, len(x.records))
	}
	return nil
}

func (x *export) checkRoot(c *checkpoint) error {
	if c.N > int64(len(x.records)) {
		return fmt.Errorf("over %d records, there are %d", c.N, len(x.records))
	}
	root, err := tlog.TreeHash(c.N, x.stored)
	if err != nil {
		return err
	}
	if root != c.Hash {
		return fmt.Errorf("signed root %v at size %d, the records have %v", c.Hash, c.N, root)
	}
	return nil
}

// checkInclusion proves records to be under each checkpoint: the first, the last, some in between.
func (x *export) checkInclusion() error {
	for _, c := range x.checkpoints {
		step := c.N/samples + 1
		for i := int64(0); i < c.N-1; i += step {
			if err := x.checkRecord(c, i); err != nil {
				return err
			}
		}
		if err := x.checkRecord(c, c.N-1); err != nil {
			return err
		}
	}
	return nil
}

func (x *export) checkRecord(c *checkpoint, i int64) error {
	proof, err := tlog.ProveRecord(c.N, i, x.stored)
	if err == nil {
		err = tlog.CheckRecord(proof, c.N, c.Hash, i, tlog.RecordHash(x.records[i]))
	}
	if err != nil {
		return fmt.Errorf("%s: record %d of %d: %w", c.where, i, c.N, err)
	}
	x.included++
	return nil
}

// checkConsistency proves each signed tree to extend the one before, and the last one the first.
func (x *export) checkConsistency() error {
	older := x.checkpoints[0]
	for _, newer := range x.checkpoints[1:] {
		if err := x.checkExtension(older, newer); err != nil {
			return err
		}
		older = newer
	}
	return x.checkExtension(x.checkpoints[0], older)
}

func (x *export) checkExtension(older, newer *checkpoint) error {
	proof, err := tlog.ProveTree(newer.N, older.N, x.stored)
	if err == nil {
		err = tlog.CheckTree(proof, newer.N, newer.Hash, older.N, older.Hash)
	}
	if err != nil {
		return fmt.Errorf("%s: not an extension of %s: %w", newer.where, older.where, err)
	}
	x.extended++
	return nil
}

// summary counts, the signatures by key hash.
func (x *export) summary(proofs int) string {
	by := map[uint32]int{}
	for _, c := range x.checkpoints {
		for _, hash := range c.signers {
			by[hash]++
		}
	}
	var signatures []string
	for hash, n := range by {
		signatures = append(signatures, fmt.Sprintf("%d by %08x", n, hash))
	}
	sort.Strings(signatures)
	return fmt.Sprintf("checked %s: %d records, %d notes (signatures: %s), %d inclusions, "+
		"%d extensions, %d proofs", x.origin, len(x.records), len(x.checkpoints),
		strings.Join(signatures, ", "), x.included, x.extended, proofs)
}
