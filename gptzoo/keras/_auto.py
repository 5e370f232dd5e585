"""Auto classes in Keras: a model of the family that a config names."""

from __future__ import annotations

from gptzoo._auto import Auto
from gptzoo.heads import AUTO_HEADS

HOME = "gptzoo.keras"


class AutoModel(Auto):
    """Makes a model without a head."""

    head = AUTO_HEADS["AutoModel"]
    home = HOME


class AutoModelForCausalLM(Auto):
    """Makes a model with a language model head."""

    head = AUTO_HEADS["AutoModelForCausalLM"]
    home = HOME


class AutoModelForSequenceClassification(Auto):
    """Makes a model with a classifier of sequences."""

    head = AUTO_HEADS["AutoModelForSequenceClassification"]
    home = HOME


class AutoModelForTokenClassification(Auto):
    """Makes a model with a classifier of tokens."""

    head = AUTO_HEADS["AutoModelForTokenClassification"]
    home = HOME


class AutoModelForQuestionAnswering(Auto):
    """Makes a model with a finder of answers in a text."""

    head = AUTO_HEADS["AutoModelForQuestionAnswering"]
    home = HOME
