"""The command line checks a task, so importing the room loads none of the heavy libraries."""

import subprocess
import sys


def test_importing_tasks_and_generating_one_loads_no_heavy_library():
    script = (
        "import sys\n"
        "from autopeft.tasks import TaskSpec, load_task, training_defaults\n"
        "training_defaults(load_task(TaskSpec('aspects', train_rows=10, validation_rows=10)))\n"
        "print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
