package siege

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// writeBack has the kernel send dirty pages of the server's files to the disk
// now and then, without a flush, as it does by itself after some seconds: else
// hardly anything would ever wait in the disk's cache when its power fails.
func (c *crowd) writeBack(ctx context.Context, random *rand.Rand) error {
	data := c.place.data()
	for ctx.Err() == nil {
		files := []string{filepath.Join(data, "repo-manager.db"), filepath.Join(data, "repo-manager.db-wal")}
		for _, pattern := range []string{"incoming/*", "blobs/.tmp/*", "public/.tmp/*/*", "public/*/*/dists/*/*"} {
			// The patterns are well formed, which is the only error.
			found, _ := filepath.Glob(filepath.Join(data, pattern))
			files = append(files, found...)
		}
		for _, path := range files {
			if random.IntN(2) == 0 {
				continue
			}
			file, err := os.Open(path)
			if err != nil {
				continue // it has its name no more
			}
			// What cannot be written now is written later.
			_ = unix.SyncFileRange(int(file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
			if err := file.Close(); err != nil {
				return err
			}
		}
		sleep(ctx, time.Duration(random.IntN(10))*time.Millisecond)
	}
	return nil
}
