// Package configuration knows what devices are configured with: flat keys with
// typed values, set for a product, a stage or a device of a pipeline.
//
// The nearest value wins: that of the device, then that of its stage, then
// that of its product, then the default of the product's schema. A schema says
// which keys a product has; without one every key is allowed. Whether a value
// fits is looked at when it is set, when a schema changes, and again when a
// device's configuration is put together, since devices move.
//
// A secret is encrypted with the server's configuration key as soon as it
// arrives, is kept like that in memory and in the store, and is decrypted only to
// be encrypted to a device. Nothing of this package shows one.
//
// A revision is a hash over what a device is configured with. A secret enters
// it as it is stored, encrypted with a random nonce: so the revision changes
// whenever a secret is set, even to what it was, nobody can find a secret
// out by guessing and comparing revisions, and a restart changes nothing.
package configuration
