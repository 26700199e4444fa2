"""The configuration: one YAML file for all stages of one setup.

*Identity* fields (``teacher``, ``corpora``, and ``cache`` without ``cache.run``) decide what a cache
contains, so that a cache made with other values is refused. *Run options* (paths, workers, batch sizes,
devices) never do.
"""

from pea.config.cache import (
    AttentionConfig,
    CacheConfig,
    CacheRunConfig,
    CountSketch,
    ExactSketch,
    FoldSketch,
    PositionsSketch,
    QuantizedSketch,
    SketchConfig,
)
from pea.config.corpora import CorporaConfig, CorpusConfig, DescribedConfig, DrawingConfig, TeacherConfig
from pea.config.evaluate import EvaluateConfig, GridConfig, SamplerConfig, ScorersConfig
from pea.config.phases import PhaseConfig
from pea.config.root import Config, load_config, resolved_yaml, valid_names
from pea.config.section import FloatDtype, Fraction, Section, StoredValues
from pea.config.student import AdapterConfig, StudentConfig
from pea.config.train import Phase, TrainConfig

__all__ = [
    "AdapterConfig",
    "AttentionConfig",
    "CacheConfig",
    "CacheRunConfig",
    "Config",
    "CorporaConfig",
    "CorpusConfig",
    "CountSketch",
    "DescribedConfig",
    "DrawingConfig",
    "EvaluateConfig",
    "ExactSketch",
    "FloatDtype",
    "FoldSketch",
    "Fraction",
    "GridConfig",
    "Phase",
    "PhaseConfig",
    "PositionsSketch",
    "QuantizedSketch",
    "SamplerConfig",
    "ScorersConfig",
    "Section",
    "SketchConfig",
    "StoredValues",
    "StudentConfig",
    "TeacherConfig",
    "TrainConfig",
    "load_config",
    "resolved_yaml",
    "valid_names",
]
