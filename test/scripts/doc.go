// Package scripts plays the stories of Aptfleet's users as readable scripts
// over the real programs: each *.txtar is one story, with a server of its
// own. Besides the commands of testscript there are:
//
//	serve [FLAG...]            start repo-manager serve on $WORK/data; sets $ADMIN and $PUBLIC
//	halt                       end it in an orderly way (SIGTERM); stop would end the script, as passed
//	deb NAME VERSION [ARCH]    build NAME_VERSION_ARCH.deb with dpkg-deb; more fields come from NAME.fields
//	damage PATTERN             flip the last byte of the one file that matches; twice heals it
//	cut FILE BYTES             shorten a file to its first bytes
//	device FILE VERB [ARG...]  play a device that is kept in a file (see device_test.go)
//	keyring FILE               write the certificate of a new key that signs nothing here
//	http [-ca FILE] [-token T | -basic NAME:PASSWORD] [-header 'N: V']... [-file F | -body TEXT] METHOD URL
//	                           ask by HTTP; stdout is the status and the body
//	exits CODE PROGRAM ARG...  run a program that must end with this exit status
//	secret NAME                put the single line of stdout into $NAME
//	terminal COMMAND           run a shell command whose standard streams are a terminal
//	listen, heard PATTERN      open the server's event stream; wait for "KIND PIPELINE SUBJECT"
//	silent NAME                put the URL of a port where nobody ever answers into $NAME
//	soon NAME, past NAME       put a time three seconds from now into $NAME; wait until it is over
//	shape                      replace stdout by its JSON with ids, times and secrets named
//
// To take what the programs print now as what they should print, set
// APTFLEET_UPDATE=1 and read the difference before committing it.
package scripts
