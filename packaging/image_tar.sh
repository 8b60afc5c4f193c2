#!/bin/sh
# tar for `kubectl cp FILE POD:/FILE`, which unpacks into / by running tar in the container. containerd keeps / root's,
# whatever an image says, so a user who may not write there finds the files in the working directory instead, where
# `kubectl exec POD -- python FILE` looks for them. All other calls go to tar as they are.
for last; do :; done
case "$*" in
*"-xmf - -C /")
	if [ "$last" = / ] && [ ! -w / ] && [ -w "$HOME" ]; then
		echo "gray: user $(id -u) may not write to /, so the files are put into $HOME, the working directory" >&2
		cd "$HOME" || exit 1
		set -- "$@" -C "$HOME"
	fi
	;;
esac
exec /usr/bin/tar "$@"
