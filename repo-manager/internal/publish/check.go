package publish

import (
	"errors"

	"aptfleet/internal/sign"
)

var errOtherText = errors.New("InRelease signs another text than Release holds")

// verify holds the signatures of a base's files against the archive key.
func (p *Publisher) verify(signed Signed) error {
	certificate, err := p.signer.Certificate()
	if err != nil {
		return err
	}
	text, _, err := sign.Verify(signed.InRelease, certificate, p.now())
	if err != nil {
		return err
	}
	if string(text) != string(signed.Text) {
		return errOtherText
	}
	_, err = sign.VerifyDetached(signed.Text, signed.Gpg, certificate, p.now())
	return err
}
