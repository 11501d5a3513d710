"""The methods on nerfstudio's own command line."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import tyro

from mtcm_nerfstudio.nerf.datamanagers import scale_to_fit
from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParserConfig


@pytest.fixture(scope="module")
def parse():
    from nerfstudio.configs.method_configs import AnnotatedBaseConfigUnion

    def parse_line(line: str):
        return tyro.cli(AnnotatedBaseConfigUnion, args=line.split())

    return parse_line


def settings(config):
    dataparser = config.pipeline.datamanager.dataparser
    assert isinstance(dataparser, MTCMDataParserConfig)
    return dataparser


@pytest.mark.parametrize("method", ["mtcm-nerfacto", "mtcm-nerfacto-tiny"])
def test_the_built_in_parser_is_named_or_not_with_the_filters_flags_beside_it(parse, method):
    assert settings(parse(f"{method} --data D")) == MTCMDataParserConfig()
    assert settings(parse(f"{method} --pipeline.datamanager.dataparser mtcm --data D")) == MTCMDataParserConfig()
    line = f"{method} --pipeline.datamanager.dataparser mtcm --pipeline.datamanager.filter.threshold 0.7 --data D"
    line += " --pipeline.datamanager.parser.eval-mode all --pipeline.datamanager.output-dir O"
    given = settings(parse(line))
    assert (given.filter.threshold, given.stock.eval_mode, given.output_dir) == (0.7, "all", Path("O"))


@pytest.mark.parametrize("method", ["nerfacto", "splatfacto", "instant-ngp", "depth-nerfacto"])
def test_stock_methods_take_the_parser_behind_them_with_its_flags(parse, method):
    given = settings(parse(f"{method} --data D mtcm --threshold 0.7 --source colmap --eval-mode all --output-dir O"))
    assert (given.filter.threshold, given.filter.source, given.stock.eval_mode) == (0.7, "colmap", "all")
    assert given.output_dir == Path("O")


def test_no_other_dataparser_can_be_named_there(parse, capsys):
    with pytest.raises(SystemExit):
        parse("mtcm-nerfacto-tiny --pipeline.datamanager.dataparser blender-data --data D")
    assert "mtcm" in capsys.readouterr().err


def test_a_threshold_out_of_range_is_refused_in_words(parse, capsys):
    with pytest.raises((SystemExit, ValueError)) as refused:
        parse("nerfacto --data D mtcm --threshold 7")
    said = capsys.readouterr()
    assert "--threshold must lie in [0, 1], got 7" in " ".join((str(refused.value) + said.err + said.out).split())


def test_the_tiny_method_needs_no_gpu_no_viewer_and_ends_by_itself(parse):
    config = parse("mtcm-nerfacto-tiny --data D")
    assert config.pipeline.model.implementation == "torch" and not config.mixed_precision
    assert not config.is_viewer_enabled()
    assert (config.machine.device_type == "cuda") == torch.cuda.is_available()


@pytest.mark.parametrize("first", ["register_dataparser", "register_methods", "pipeline", "dataparser.parser"])
def test_nothing_goes_in_a_circle_whatever_is_imported_first(first):
    code = f"import mtcm_nerfstudio.nerf.{first}; from nerfstudio.configs.method_configs import all_methods as m; "
    code += "assert 'mtcm-nerfacto-tiny' in m and 'mtcm-nerfacto' in m; "
    code += "from nerfstudio.configs.dataparser_configs import all_dataparsers as d; assert 'mtcm' in d"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_dataparsers_registration_imports_no_pipeline_and_no_datamanager():
    code = "import sys, mtcm_nerfstudio.nerf.register_dataparser; "
    code += "late = ('nerfstudio.pipelines', 'nerfstudio.data.datamanagers'); "
    code += "assert not [module for module in sys.modules if module.startswith(late)]"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


SIZES = [[[900, 1600]], [[1600, 1063], [1063, 1600]], [[641, 479]], [[100, 50]], [[5311, 3917]]]


@pytest.mark.parametrize("sizes", SIZES)
def test_images_and_cameras_come_out_at_the_same_size(sizes):
    scale = scale_to_fit(sizes, 320)
    for side in (side for size in sizes for side in size):
        assert int(side * scale) == int((torch.tensor([side]) * torch.tensor([scale])).to(torch.int64))
        assert int(side * scale) <= 320
    assert scale == 1.0 or max(int(side * scale) for size in sizes for side in size) >= 318
