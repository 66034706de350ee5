package blockdisk
