"""Pipelines: from texts to results in one call, the same in every framework."""

from gptzoo.pipelines._base import ItemError, Pipeline
from gptzoo.pipelines._feature_extraction import FeatureExtractionPipeline
from gptzoo.pipelines._loading import pipeline, task_class
from gptzoo.pipelines._question_answering import QuestionAnsweringPipeline
from gptzoo.pipelines._text_classification import TextClassificationPipeline
from gptzoo.pipelines._text_generation import TextGenerationPipeline
from gptzoo.pipelines._token_classification import TokenClassificationPipeline

__all__ = [
    "FeatureExtractionPipeline",
    "ItemError",
    "Pipeline",
    "QuestionAnsweringPipeline",
    "TextClassificationPipeline",
    "TextGenerationPipeline",
    "TokenClassificationPipeline",
    "pipeline",
    "task_class",
]
