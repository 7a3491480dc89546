"""Trainings whose disk becomes full, read-only, or loses the run folder; needs root and Linux."""

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from endurance_parts.trainings import MOMENTS, Training, compare, train_undisturbed

_FAULTS = ('full', 'read-only', 'vanished')
_IMAGE_BYTES = 48 << 20


def run(folder: Path, count: int, seed: int) -> Iterator[tuple[str, str, float]]:
    """Yields (fault, outcome, seconds) of `count` faults, from case `seed` on.

    Every fault meets every moment in turn. The training must end with status 2 and a message; the
    same command, once the disk is well again, must give what an undisturbed training gives.
    """
    if count <= 0:
        return
    if os.geteuid():
        raise SystemExit('--disks needs root, to mount file systems')
    whole = train_undisturbed(folder)
    for case in range(seed, seed + count):
        fault = _FAULTS[case % len(_FAULTS)]
        moment = [*MOMENTS][case // len(_FAULTS) % len(MOMENTS)]
        began = time.monotonic()
        disk = _Disk(folder / 'disk', folder / 'disk.img')
        try:
            outcome = _try(disk, fault, moment, random.Random(case), folder, whole)
        finally:
            disk.unmount()
        yield f'{fault}, {moment}', outcome, time.monotonic() - began


def _try(
    disk: '_Disk', fault: str, moment: str, rng: random.Random, folder: Path, whole: Path
) -> str:
    workdir = disk.folder / 'run'
    training = Training(workdir, folder)
    training.wait_for(moment, rng.uniform(0, 1))
    getattr(disk, fault.replace('-', '_'))(workdir)
    if (outcome := training.wait()) != 'ok':
        return outcome
    status, last = training.process.returncode, ''.join(training.lines[-1:])
    if status not in (0, 2):  # 0 if it had ended before
        return f'status {status}: {last}'
    if status == 2 and 'Error' not in last and 'cannot' not in last and str(workdir) not in last:
        return f'no message: {last}'
    disk.mend()
    training = Training(workdir, folder)
    if (outcome := training.wait()) != 'ok':
        return f'when resumed: {outcome}'
    if training.process.returncode:
        return f'when resumed: {"".join(training.lines[-2:])}'
    return compare(whole, workdir)


class _Disk:
    """A small file system in a file."""

    def __init__(self, folder: Path, image: Path):
        self.folder, self._image = folder, image
        self.unmount()
        folder.mkdir(exist_ok=True)
        with image.open('wb') as file:
            file.truncate(_IMAGE_BYTES)
        _call('mkfs.ext4', '-q', image)
        self._mount()

    def _mount(self):
        _call('mount', '-o', 'loop,errors=remount-ro', self._image, self.folder)

    def unmount(self):
        subprocess.run(['umount', '-l', str(self.folder)], capture_output=True, check=False)

    def full(self, _: Path):
        """Fills the disk to the last byte."""
        with (self.folder / 'filler').open('wb', buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def read_only(self, _: Path):
        """Makes the kernel believe in a fault, after which it lets nobody write."""
        device = _call('findmnt', '-no', 'SOURCE', self.folder).strip()
        Path('/sys/fs/ext4', Path(device).name, 'trigger_fs_error').write_text('trial')

    def vanished(self, workdir: Path):
        """Deletes the run folder."""
        shutil.rmtree(workdir, ignore_errors=True)

    def mend(self):
        """Makes room, and makes the disk one that can be written again."""
        self.unmount()
        subprocess.run(['e2fsck', '-fy', str(self._image)], capture_output=True, check=False)
        self._mount()
        (self.folder / 'filler').unlink(missing_ok=True)


def _call(*command: object) -> str:
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout
