from segtrain.cli.main import run_command


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert run_command("shards", ["dataset=shapes", f"output={tmp_path}"]) == 2
    assert "dataset 'shapes' has no files to write to shards" in capsys.readouterr().err
    assert run_command("shards", ["dataset=shapes", "output=x", "samples_per_shard=0"]) == 2
    assert "samples_per_shard must be above 0, got 0" in capsys.readouterr().err
