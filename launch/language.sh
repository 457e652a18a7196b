#!/usr/bin/env bash
# Weights from a question, all stages on the built-in glyphvqa: the encoder,
# HNET with its baselines, HVAE, HyperCLIP and HyperLDM, trained, evaluated and
# in one table. Run it again to go on where it stopped. Arguments go to
# launch/results.py, for instance
#   bash launch/language.sh --seeds=0,1,2 \
#     --out=docs/results/tables/guidance-glyphvqa.md
#   bash launch/language.sh --rows=contrastive,multitask,hypernet,hyperldm
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
make_environment
python launch/results.py --page=guidance --dataset=glyphvqa --seeds=0 "$@"
