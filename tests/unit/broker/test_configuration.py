"""What the broker has to agree on with the workers, as files for the node."""

import json
from pathlib import Path

import pytest

from holdfast.processor.broker.configuration import ADVANCED, OWN, enabled_plugins, files, node_settings
from holdfast.processor.broker.topology import PLUGIN
from holdfast.processor.cli import main
from holdfast.schemas.settings import Settings


def values(text: str) -> dict[str, str]:
    return dict(line.split(" = ") for line in text.splitlines())


def test_the_exchange_that_partitions_take_is_enabled_with_what_is_asked_for() -> None:
    assert enabled_plugins() == f"[{PLUGIN}].\n"
    assert enabled_plugins(["rabbitmq_management"]) == f"[{PLUGIN},rabbitmq_management].\n"


def test_the_node_goes_by_the_heartbeat_of_the_workers() -> None:
    assert values(node_settings(Settings(lease=15)))["heartbeat"] == "5"


def test_no_delivery_to_a_worker_outlives_the_time_out_of_consumers() -> None:
    assert int(values(node_settings(Settings()))["consumer_timeout"]) == 1_800_000
    patient = Settings(ack_deadline=7200)
    assert int(values(node_settings(patient))["consumer_timeout"]) > 1000 * patient.ack_deadline


def test_a_node_keeps_room_for_the_logs_of_queues() -> None:
    assert values(node_settings(Settings()))["disk_free_limit.absolute"] == "2GB"


def test_the_nodes_of_a_cluster_find_each_other_and_stop_where_they_are_few() -> None:
    found = values(node_settings(Settings(), ["rabbit@one", "rabbit@two"]))
    assert found["cluster_formation.classic_config.nodes.1"] == "rabbit@one"
    assert found["cluster_formation.classic_config.nodes.2"] == "rabbit@two"
    assert found["cluster_partition_handling"] == "pause_minority"
    assert "cluster_partition_handling" not in values(node_settings(Settings()))


def test_a_node_is_told_the_memory_that_it_has() -> None:
    assert values(node_settings(Settings(), memory=2 << 30))["total_memory_available_override_value"] == "2147483648"
    assert "total_memory_available_override_value" not in values(node_settings(Settings()))


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 << 30), ("2GiB", 2 << 30), ("512m", 512 << 20), ("64kb", 64 << 10), ("1000b", 1000), ("7", 7)],
)
def test_the_command_takes_sizes_as_compose_does(text: str, size: int, tmp_path: Path) -> None:
    assert main(["broker-config", f"{tmp_path}", "--memory", text]) == 0
    assert f"total_memory_available_override_value = {size}\n" in (tmp_path / "rabbitmq.conf").read_text()


@pytest.mark.parametrize("text", ["", "0", "0g", "g", "2.5g", "-1g", "2 apples"])
def test_what_is_no_size_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broker-config", f"{tmp_path}", f"--memory={text}"]) == 2
    assert "is no size: give one such as 2g or 512m." in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_the_command_writes_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "etc" / "rabbitmq"
    assert main(["broker-config", f"{folder}", "--plugin", "rabbitmq_management", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written == [f"{folder}/{name}" for name in ("enabled_plugins", "rabbitmq.conf", "advanced.config")]
    assert (folder / "enabled_plugins").read_text() == f"%% {OWN}\n" + enabled_plugins(["rabbitmq_management"])
    assert (folder / "rabbitmq.conf").read_text() == f"# {OWN}\n" + node_settings(Settings())
    assert (folder / "advanced.config").read_text() == f"%% {OWN}\n" + ADVANCED


def test_the_command_writes_its_own_files_anew(tmp_path: Path) -> None:
    assert main(["broker-config", f"{tmp_path}"]) == 0
    assert main(["broker-config", f"{tmp_path}", "--memory", "2g"]) == 0
    assert (tmp_path / "rabbitmq.conf").read_text() == files(Settings(), memory=2 << 30)["rabbitmq.conf"]


@pytest.mark.parametrize("name", ["enabled_plugins", "rabbitmq.conf", "advanced.config"])
def test_the_command_leaves_alone_what_somebody_else_wrote(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text("theirs\n")
    assert main(["broker-config", f"{tmp_path}"]) == 2
    assert "is not overwritten, as something else wrote it" in " ".join(capsys.readouterr().err.split())
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "theirs\n"
