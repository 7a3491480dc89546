"""`python -m vivit_jax`: what is installed, which devices there are, and what can be run."""

import av
import flax
import jax

from vivit_jax.train.run_folder import versions

_COMMANDS = """Commands
  python -m vivit_jax.main --config=configs/demo.py           train, validate and test a model
  python -m vivit_jax.main --config=FILE --mode=evaluate      test a checkpoint on several views
  python -m vivit_jax.predict --checkpoint=runs/demo VIDEO    name the action in videos
  python -m vivit_jax.summary --config=FILE                   count parameters, FLOPs and memory
  python -m vivit_jax.prepare check --config=FILE ...         check or pack a dataset, time decoding
  python -m vivit_jax.convert --source=PATH --to=torch ...    take weights in, and out
Each explains its flags with --help."""


def main():
    """Prints versions, devices and commands."""
    found = versions()
    print(f'vivit_jax {found["vivit_jax"]}')
    print(f'Python    {found["python"]}')
    print(f'JAX       {jax.__version__}, Flax {flax.__version__}')
    kinds = ', '.join(sorted({device.device_kind for device in jax.devices()}))
    print(f'Devices   {jax.device_count()} {jax.default_backend()} ({kinds})')
    codec = '.'.join(map(str, av.library_versions['libavcodec']))
    print(f'Decoder   PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info} (libavcodec {codec})')
    print()
    print(_COMMANDS)


if __name__ == '__main__':
    main()
