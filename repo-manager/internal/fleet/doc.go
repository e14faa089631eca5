// Package fleet knows the devices of every pipeline: who may become one, what
// each said last, and what each should run. The contract with devices is
// docs/device-protocol.md.
//
// A device is known by its Ed25519 key. What it says is signed by that key,
// what it is told is signed by the assignment key; the content of that follows
// from its stage, pin, hold, product and configuration and is made anew only
// when one of those moved.
//
// All devices are held in memory. A check-in that says what the last one said
// costs one signature and touches no file. What has to be durable before it is
// answered (a changed report, a higher counter) is written by one goroutine
// for all who wait: one commit, however many they are.
//
// # Locks
//
// Each device has a lock that whoever judges or changes it holds until its row
// is durable. The lock of the service guards memory and is never held while a
// file is written or a signature is checked. Who needs several takes them in
// this order: Service.acts, device.busy, Service.mu.
package fleet
