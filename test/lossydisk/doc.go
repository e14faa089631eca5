// Package lossydisk is a block device that can lose its power. What was
// written is only kept for certain once it was flushed; of the rest, a cut
// lets a random part survive, some of it torn.
//
// The device is an NBD server in this process, made a file by nbdfuse, a block
// device by a loop device with direct I/O, and mounted: no kernel module is
// needed besides FUSE and loop. An fsync by whoever uses the file system
// arrives here as NBD_CMD_FLUSH.
//
// A recording of what a disk is told gives, later and as often as one likes, the
// disk that a cut at any of these moments would have left: so one undisturbed run
// is as good as many that were cut. A disk may have parts, which share its cache.
//
//	file system → /dev/loopN → nbdfuse's file → NBD → Disk
package lossydisk
