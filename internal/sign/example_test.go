package sign_test

import (
	"fmt"
	"time"

	"aptfleet/internal/sign"
)

func Example() {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key, err := sign.Generate("Archive", "archive@test.example", now)
	if err != nil {
		panic(err)
	}
	inRelease, err := key.ClearSign([]byte("Suite: production\n"), now)
	if err != nil {
		panic(err)
	}
	keyring, err := key.CertificateBinary()
	if err != nil {
		panic(err)
	}
	text, signer, err := sign.Verify(inRelease, keyring, now)
	fmt.Printf("%s%t %v\n", text, signer == key.Fingerprint(), err)
	// Output:
	// Suite: production
	// true <nil>
}
