"""The ``mtcm`` dataparser as nerfstudio finds it.

nerfstudio loads this while it is still building the list of dataparsers that its datamanagers need, so nothing here
may import a datamanager or a pipeline: that would be a circle. The methods are registered in ``register_methods``.
"""

from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from mtcm_nerfstudio.nerf.dataparser.parser import MTCMDataParserConfig

mtcm_dataparser = DataParserSpecification(
    config=MTCMDataParserConfig(),
    description="nerfstudio-data or colmap, whichever the capture is, over the frames that MTCM kept.",
)
