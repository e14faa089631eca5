// Package cuts takes the power from devices in the middle of their updates, a
// thousand times, and looks at what boots afterwards.
//
// The device is a disk that loses its power (package lossydisk): boot control
// on ext4 without a journal and btrfs with the deployments, made as the image
// builder makes them, with a real Debian root, the real updater, apt and dpkg. A
// round is one update from a release to the next, undisturbed; of two in turn
// one is bad, and the boot loader and the updater go back. All that the disk is
// told meanwhile is recorded. Then, for moments chosen among all writes, the
// disk is had as a power cut there would have left it: a part of what was not
// flushed is lost, some of it torn. Each such image is judged, which is what
// file judge.go says, and thrown away.
//
// What is played: PID 1 and the firmware. A boot is a mount namespace in which
// the deployment is the root, in which `mount-state` and the updater run; the
// loader's rules are those of package bootcontrol, and GRUB's own word is asked
// for a part of the images.
package cuts
