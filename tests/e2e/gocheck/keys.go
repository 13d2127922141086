package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
)

// An ecdsaVerifier is the note.Verifier that the note package does not have: P-256, the signature
// in DER over SHA-256 of the text. Its key hash depends on the key alone, not on the name.
type ecdsaVerifier struct {
	name string
	hash uint32
	key  *ecdsa.PublicKey
}

func (v *ecdsaVerifier) Name() string    { return v.name }
func (v *ecdsaVerifier) KeyHash() uint32 { return v.hash }

func (v *ecdsaVerifier) Verify(text, signature []byte) bool {
	digest := sha256.Sum256(text)
	return ecdsa.VerifyASN1(v.key, digest[:], signature)
}

// readVerifiers makes verifiers of the public keys in these files, for signatures under this name.
func readVerifiers(name string, paths []string) (note.Verifiers, error) {
	var list []note.Verifier
	for _, path := range paths {
		v, err := readVerifier(name, path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, v)
	}
	return note.VerifierList(list...), nil
}

func readVerifier(name, path string) (note.Verifier, error) {
	octets, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(octets)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("no public key in PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return newECDSAVerifier(name, key, block.Bytes)
	case ed25519.PublicKey:
		return newEd25519Verifier(name, key)
	}
	return nil, fmt.Errorf("a key of type %T", key)
}

func newECDSAVerifier(name string, key *ecdsa.PublicKey, spki []byte) (note.Verifier, error) {
	if key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("a key on the curve %s", key.Params().Name)
	}
	digest := sha256.Sum256(spki)
	return &ecdsaVerifier{name, binary.BigEndian.Uint32(digest[:]), key}, nil
}

// newEd25519Verifier leaves all to the note package, key hash included.
func newEd25519Verifier(name string, key ed25519.PublicKey) (note.Verifier, error) {
	encoded, err := note.NewEd25519VerifierKey(name, key)
	if err != nil {
		return nil, err
	}
	return note.NewVerifier(encoded)
}
