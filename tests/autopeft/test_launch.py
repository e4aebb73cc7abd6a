import signal
import sys
import time

import pytest

from autopeft.errors import ConfigurationError, EvaluationError
from autopeft.launch import LocalEngine, WorkerPlan, child_environment, devices, make_engine, plan_workers, visible_gpus


def test_cpu_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", list)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert plan_workers("2") == [WorkerPlan("cpu", 2)] * 2
    assert plan_workers("8") == [WorkerPlan("cpu", 1)] * 8


def test_each_gpu_gets_one_worker_pinned_to_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    plans = plan_workers("auto")
    assert [(plan.device, plan.visible_gpu) for plan in plans] == [("cuda:0", "2"), ("cuda:0", "5")]
    assert child_environment("sqlite:///a.db", plans[1])["CUDA_VISIBLE_DEVICES"] == "5"


def test_gpus_hidden_by_the_user_stay_hidden(monkeypatch):
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert visible_gpus() == []


@pytest.mark.parametrize("text", ["0", "-2", "two", "1.5", "9999"])
def test_a_wrong_number_of_workers_is_refused(text):
    with pytest.raises(ConfigurationError, match="expected a whole number"):
        plan_workers(text)


def test_the_database_is_not_in_the_arguments(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(devices, "worker_command", lambda *words: seen.append(words) or [sys.executable, "-c", ""])
    engine = LocalEngine("postgresql://user:secret@host/db", "s", tmp_path, [WorkerPlan("cpu", 1)])
    engine.start()
    engine.stop()
    assert "secret" not in " ".join(seen[0])
    assert child_environment("postgresql://user:secret@host/db", WorkerPlan("cpu", 1))["AUTOPEFT_DB"].endswith(
        "host/db"
    )


def test_workers_keep_states_as_they_are_told(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(devices, "worker_command", lambda *words: list(words))
    monkeypatch.setattr("autopeft.launch.local.subprocess.Popen", lambda command, **_: seen.append(command))
    for cache in (None, "off"):
        LocalEngine("sqlite:///a.db", "s", tmp_path, [WorkerPlan("cpu", 1)], cache).start()
    assert "--cache" not in seen[0]
    assert seen[1][seen[1].index("--cache") + 1] == "off"


def test_workers_train_as_many_trials_together_as_they_are_told(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(devices, "worker_command", lambda *words: list(words))
    monkeypatch.setattr("autopeft.launch.local.subprocess.Popen", lambda command, **_: seen.append(command))
    for pack in (1, 8):
        make_engine("local", "sqlite:///a.db", "s", tmp_path, "1", pack=pack).start()
    assert "--pack" not in seen[0]
    assert seen[1][seen[1].index("--pack") + 1] == "8"


def engine_of(monkeypatch, tmp_path, code):
    monkeypatch.setattr(devices, "worker_command", lambda *_: [sys.executable, "-c", code])
    return LocalEngine("sqlite:///a.db", "s", tmp_path, [WorkerPlan("cpu", 1)])


def test_workers_that_keep_dying_end_the_search_with_their_last_words(monkeypatch, tmp_path):
    engine = engine_of(monkeypatch, tmp_path, "raise SystemExit('no such model')")
    engine.start()
    with pytest.raises(EvaluationError, match="no such model"):
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            engine.ensure_alive()
            time.sleep(0.02)


def test_a_worker_that_died_is_started_again(monkeypatch, tmp_path):
    engine = engine_of(monkeypatch, tmp_path, "import time; time.sleep(60)")
    engine.start()
    first = engine._running[0].process
    first.kill()
    first.wait()
    assert engine.alive_count == 0
    engine.ensure_alive()
    assert engine.alive_count == 1
    engine.stop()
    assert engine.alive_count == 0


def test_a_worker_that_ignores_the_request_is_killed(monkeypatch, tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    engine = engine_of(monkeypatch, tmp_path, code)
    engine.start()
    process = engine._running[0].process
    while "up" not in engine._running[0].log.read_text():
        time.sleep(0.02)
    engine.stop(patience_seconds=0.3)
    assert process.returncode == -signal.SIGKILL


def test_an_engine_that_is_not_there_is_said(tmp_path):
    assert make_engine("local", "sqlite:///a.db", "s", tmp_path, "1").plans
    with pytest.raises(ConfigurationError, match="engine 'kubernetes': expected one of local, ray, slurm"):
        make_engine("kubernetes", "sqlite:///a.db", "s", tmp_path, "1")


def test_a_worker_may_have_several_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    plans = devices.plan_workers("auto", gpus_each=2)
    assert [(plan.device, plan.visible_gpu) for plan in plans] == [("cuda:0", "0,1"), ("cuda:0", "2,3")]
    assert devices.child_environment("", plans[1])["CUDA_VISIBLE_DEVICES"] == "2,3"
    with pytest.raises(ConfigurationError, match="gpus per worker 6: this machine shows 5 GPU"):
        devices.plan_workers("1", gpus_each=6)


def test_ray_and_slurm_ask_for_the_gpus_of_a_worker(tmp_path):
    ray = make_engine("ray", "sqlite://", "s", tmp_path, "2", gpus=4)
    assert ray.gpus == 4
    assert make_engine("ray", "sqlite://", "s", tmp_path, "2").gpus is None
    assert make_engine("slurm", "sqlite://", "s", tmp_path, "2", gpus=4).parameters["gpus_per_node"] == 4
    assert "gpus_per_node" not in make_engine("slurm", "sqlite://", "s", tmp_path, "2").parameters


def test_nvidia_smi_is_asked_what_the_gpus_are(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '24576, 8.6\\n40960, 8.0\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert devices.describe_gpus() == devices.Gpus(24576 * 2**20, halves=True)
    tool.write_text("#!/bin/sh\nprintf '15360, 7.5\\n'\n")
    assert devices.describe_gpus() == devices.Gpus(15360 * 2**20, halves=False)
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert devices.describe_gpus() is None
