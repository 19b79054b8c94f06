"""The command of the embedded models under its former name; today `python -m studio.pocket`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("studio.pocket", run_name="__main__", alter_sys=True)
