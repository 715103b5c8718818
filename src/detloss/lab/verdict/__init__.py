"""What other people's runs say: COCO result files judged as a comparison is, nothing trained."""
