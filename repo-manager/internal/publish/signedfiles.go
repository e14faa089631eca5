package publish

import "path"

// SignedFiles names the signed files of a base, relative to the root of the
// tree, in the order in which they are replaced. dir is a stage or that of a
// fixed base.
func SignedFiles(pipeline, dir, distribution string) []string {
	at := baseAt(Base{Pipeline: pipeline, Distribution: distribution}, dir)
	return []string{path.Join(at.dists, gpgFile), path.Join(at.dists, releaseFile), path.Join(at.dists, inReleaseFile)}
}
