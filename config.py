"""Every path and hyperparameter of the pipeline, by stage. Edit it per data set.

For one run only: `python 04.clustering_som.py --DATASET=bags --CLUSTER_GRANULARITY=1.2`.
`python <stage> --help` lists the constants that the stage uses. Valid values: `pipeline/settings.py`.
The folder that holds raw_img/ img/ data/ ... is the one of this file, or the environment variable IMAGE_CLUSTER_ROOT.
"""

# ---- data sets -----------------------------------------------------------------------------------
DATASET = "sample"  # folder raw_img/<DATASET>: the photographs to cluster
TRAIN_DATASET = "sample_train"  # folder raw_img/<TRAIN_DATASET>: labelled photographs of known models; may be DATASET

# ---- every stage ---------------------------------------------------------------------------------
RANDOM_SEED = 0  # integer from 0; the same seed gives the same files on the same machine
N_JOBS = 0  # worker processes or threads; 0 = one per core
REDO = False  # True: do a stage again although its inputs and settings have not changed

# ---- 00.make_labels_true -------------------------------------------------------------------------
LABEL_FROM = "name"  # "name": by LABEL_PATTERN; "folder": the parent folder's name; "none": no labels are known
LABEL_PATTERN = r"^([^_]+)_[^_]+_[^_]+$"  # regular expression on the file name without suffix; group 1 is the label

# ---- make_sample_images --------------------------------------------------------------------------

# ---- 01.img_preprocess ---------------------------------------------------------------------------
BACKGROUND_METHOD = "auto"  # "auto" chooses per image; one way for all: "plain", "grabcut", "sobel"; "none" copies
BACKGROUND_MIN_TRUST = 0.3  # 0..1; an image whose mask is trusted less keeps its background
SAVE_MASKS = False  # True: mask/<DATASET>/<name>.png beside the cleaned images

# ---- make_training_image_folders -----------------------------------------------------------------

# ---- 02.feature_network_fine_tuning --------------------------------------------------------------

# ---- 03.feature_extraction -----------------------------------------------------------------------

# ---- 04.clustering_som ---------------------------------------------------------------------------

# ---- 05.evaluation -------------------------------------------------------------------------------

# ---- 06.visualization ----------------------------------------------------------------------------

# ---- original_src: the baseline ------------------------------------------------------------------
