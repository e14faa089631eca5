package publish

import (
	"errors"

	"aptfleet/internal/sign"
)

var errOtherText = errors.New("InRelease signs another text than Release holds")

// verify holds the signatures of a base's files against the archive key.
func (p *Publisher) verify(signed Signed) error {
	text, err := p.inReleaseText(signed.InRelease)
	if err != nil {
		return err
	}
	if string(text) != string(signed.Text) {
		return errOtherText
	}
	return p.verifyDetached(signed.Text, signed.Gpg)
}

// inReleaseText returns the text that InRelease signs with the archive key.
func (p *Publisher) inReleaseText(inRelease []byte) ([]byte, error) {
	certificate, err := p.signer.Certificate()
	if err != nil {
		return nil, err
	}
	text, _, err := sign.Verify(inRelease, certificate, p.now())
	return text, err
}

// verifyDetached checks Release.gpg.
func (p *Publisher) verifyDetached(text, gpg []byte) error {
	certificate, err := p.signer.Certificate()
	if err != nil {
		return err
	}
	_, err = sign.VerifyDetached(text, gpg, certificate, p.now())
	return err
}

// Verify holds the signatures of a base's files against the archive key, and
// that they are of one text.
func (p *Publisher) Verify(signed Signed) error { return p.verify(signed) }

// VerifyPart is Verify for what may be all that is left of a base: it succeeds
// if one of the two signatures is a good one of Text, or if InRelease has a good
// one, and returns the text that it is of.
func (p *Publisher) VerifyPart(signed Signed) (text []byte, err error) {
	text, err = p.inReleaseText(signed.InRelease)
	if err == nil {
		return text, nil
	}
	return signed.Text, p.verifyDetached(signed.Text, signed.Gpg)
}
