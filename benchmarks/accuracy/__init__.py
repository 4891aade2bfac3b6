"""Accuracy of exported networks on labelled data: scoring, metrics, intervals, reports and pictures."""
