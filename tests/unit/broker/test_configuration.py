"""What the broker has to agree on with the workers, as files for the node."""

import json
from pathlib import Path

import pytest

from holdfast.processor.broker.configuration import enabled_plugins, node_settings
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


def test_the_nodes_of_a_cluster_find_each_other_and_stop_where_they_are_few() -> None:
    found = values(node_settings(Settings(), ["rabbit@one", "rabbit@two"]))
    assert found["cluster_formation.classic_config.nodes.1"] == "rabbit@one"
    assert found["cluster_formation.classic_config.nodes.2"] == "rabbit@two"
    assert found["cluster_partition_handling"] == "pause_minority"
    assert "cluster_partition_handling" not in values(node_settings(Settings()))


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "etc" / "rabbitmq"
    assert main(["broker-config", f"{folder}", "--plugin", "rabbitmq_management", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert written == [f"{folder}/enabled_plugins", f"{folder}/rabbitmq.conf"]
    assert (folder / "enabled_plugins").read_text() == enabled_plugins(["rabbitmq_management"])
    assert (folder / "rabbitmq.conf").read_text() == node_settings(Settings())
