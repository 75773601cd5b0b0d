"""The model card of a run: what its weights are, learnt from, reach and do not.

Source: Mitchell et al., Model Cards for Model Reporting, FAT* 2019: its sections, in short.
"""
