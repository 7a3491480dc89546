"""What is installed, which devices there are, and the commands under one name.

    python -m vivit_jax
    python -m vivit_jax train --config=demo

The console command `vivit_jax` is the same as `python -m vivit_jax`.
"""

import runpy
import sys

from vivit_jax.errors import near_words

# The modules that the subcommands run, and flags that come before the user's.
COMMANDS = {
    'train': ['vivit_jax.main'],
    'evaluate': ['vivit_jax.main', '--mode=evaluate'],
    'predict': ['vivit_jax.predict'],
    'summary': ['vivit_jax.summary'],
    'features': ['vivit_jax.features'],
    'probe': ['vivit_jax.probe'],
    'prepare': ['vivit_jax.prepare'],
    'convert': ['vivit_jax.convert'],
}

_HELP = """Commands
  python -m vivit_jax.main --config=configs/demo.py           train, validate and test a model
  python -m vivit_jax.main --config=FILE --mode=evaluate      test a checkpoint on several views
  python -m vivit_jax.predict --checkpoint=runs/demo VIDEO    name the action in videos
  python -m vivit_jax.summary --config=FILE                   count parameters, FLOPs and memory
  python -m vivit_jax.features --checkpoint=WEIGHTS ...       compute features of videos
  python -m vivit_jax.probe --checkpoint=WEIGHTS ...          train a classifier on a frozen model
  python -m vivit_jax.prepare check --config=FILE ...         check or pack a dataset, time decoding
  python -m vivit_jax.convert --source=PATH --to=torch ...    take weights in, and out
Each explains its flags with --help. In short: vivit_jax train, evaluate, predict, summary,
features, probe, prepare or convert, with the same flags."""


def main():
    """Runs the subcommand that the command line names, or prints what there is."""
    name, *arguments = sys.argv[1:] or ['']
    if name in COMMANDS:
        module, *defaults = COMMANDS[name]
        sys.argv[1:] = [*defaults, *arguments]
        # Decoding workers import the main module anew, which this call makes the command's module.
        runpy.run_module(module, run_name='__main__', alter_sys=True)
    elif name in ('-h', '--help'):
        print(_HELP)
    elif name:
        sys.exit(_refuse(name))
    else:
        _print_versions()
        print(f'\n{_HELP}')


def _refuse(name: str) -> int:
    print(f'Error: there is no command {name!r}{near_words(name, COMMANDS)}', file=sys.stderr)
    return 2


def _print_versions():
    import av
    import flax
    import jax

    from vivit_jax.train.run_folder import versions

    found = versions()
    print(f'vivit_jax {found["vivit_jax"]}')
    print(f'Python    {found["python"]}')
    print(f'JAX       {jax.__version__}, Flax {flax.__version__}')
    kinds = ', '.join(sorted({device.device_kind for device in jax.devices()}))
    print(f'Devices   {jax.device_count()} {jax.default_backend()} ({kinds})')
    codec = '.'.join(map(str, av.library_versions['libavcodec']))
    print(f'Decoder   PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info} (libavcodec {codec})')


if __name__ == '__main__':
    main()
