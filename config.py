"""Every path and hyperparameter of the pipeline, by stage. Edit it per data set.

    NAME: kind, with its range or its choices = value  # meaning, unit

For one run only: `python 04.clustering_som.py --DATASET=bags --CLUSTER_GRANULARITY=1.2`.
`python <stage> --help` lists the constants that the stage uses. The kinds stand in `pipeline/machinery/kinds.py`.
The folder that holds raw_img/ img/ data/ ... is the one of this file, or the environment variable IMAGE_CLUSTER_ROOT.
"""

from typing import Annotated, Literal

from annotated_types import Ge

from pipeline.machinery.kinds import (
    Block,
    Count,
    CountOrZero,
    Dataset,
    Datasets,
    EarlierBlock,
    LabelPattern,
    OnnxPath,
    PositiveShare,
    SchedulerAddress,
    Seed,
    Share,
    Text,
    between,
)

# ---- data sets -----------------------------------------------------------------------------------
DATASET: Dataset = "sample"  # folder raw_img/<DATASET>: the photographs to cluster
# folder raw_img/<TRAIN_DATASET>: labelled photographs of known models; may be DATASET
TRAIN_DATASET: Dataset = "sample_train"

# ---- every stage ---------------------------------------------------------------------------------
RANDOM_SEED: Seed = 0  # the same seed gives the same files on the same machine
# worker threads or processes, and on Linux cores used; 0 = all. Files are the same for any number
N_JOBS: Annotated[int, between(0, 1024)] = 0
# None: work on this machine; "tcp://host:8786": stages 01, 03, 04 work on the workers of that Dask cluster (README.md)
SCHEDULER: SchedulerAddress | None = None
# folder with the cluster's ca.pem, cert.pem and key.pem; None: whoever reaches the scheduler may use it (SECURITY.md)
SCHEDULER_TLS: Text | None = None
REDO: bool = False  # True: do a stage again although its inputs and settings have not changed

# ---- 00.make_labels_true -------------------------------------------------------------------------
# "name": by LABEL_PATTERN; "folder": the parent folder's name; "table": labels.csv; "none": no labels are known
LABEL_FROM: Literal["name", "folder", "table", "none"] = "name"
# regular expression on the file name without suffix; group 1 is the label
LABEL_PATTERN: LabelPattern = r"^([^_]+)_[^_]+_[^_]+$"
# True: labels from names or folders count as models also where they look like dates, a counter, a camera's prefix
TRUST_LABELS: bool = False

# ---- make_sample_images --------------------------------------------------------------------------
# data sets drawn: raw_img/<SAMPLE_NAME> (new models), raw_img/<SAMPLE_NAME>_train (known)
SAMPLE_NAME: Dataset = "sample"
SAMPLE_SEED: Seed = 0  # another seed draws another catalogue
SAMPLE_TRAIN_MODELS: Annotated[int, between(0, 10_000)] = 24  # known models; 0 = that data set is not drawn
SAMPLE_MODELS: Annotated[int, between(0, 10_000)] = 12  # new models; 0 = that data set is not drawn
SAMPLE_MIN_IMAGES: Annotated[int, between(1, 10_000)] = 15  # images of a model, at least
SAMPLE_MAX_IMAGES: Annotated[int, between(1, 10_000)] = 25  # images of a model, at most
SAMPLE_IMAGE_SIZE: Annotated[int, between(64, 1024)] = 300  # pixels per side

# ---- 01.img_preprocess ---------------------------------------------------------------------------
# "auto" chooses for each image; one way for all: "plain", "network", "grabcut", "sobel"; "none" copies
BACKGROUND_METHOD: Literal["auto", "plain", "network", "grabcut", "sobel", "none"] = "auto"
BACKGROUND_NETWORK: Text = "auto"  # "auto": the one in pipeline/; path of an .onnx file by make_background_network.py
BACKGROUND_MIN_TRUST: Share = 0.3  # an image whose mask is trusted less keeps its background
SAVE_MASKS: bool = False  # True: mask/<DATASET>/<name>.png beside the cleaned images

# ---- make_background_network ---------------------------------------------------------------------
# folders of raw_img/ whose photographs have masks in mask_true/; commas between several
MASK_DATASETS: Datasets = "sample_train"
GROUND_DATASETS: Datasets | None = None  # folders of raw_img/ whose photographs serve as grounds; None = none
COMPOSITES: Annotated[int, between(0, 1_000_000)] = 6000  # photographs composed from products and grounds
MASK_EPOCHS: Annotated[int, between(1, 1000)] = 14  # passes over all of them

# ---- make_start_network --------------------------------------------------------------------------
START_PACKAGES: Text | None = None  # folder in which Debian packages are unpacked; None: model/start_packages
START_MODELS: Annotated[int, between(24, 1_000_000)] = 6000  # products that are photographed
START_STEPS: Annotated[int, between(1, 10_000_000)] = 3000  # batches of 36 photographs that the network learns from

# ---- make_training_image_folders -----------------------------------------------------------------
MIN_IMAGES_PER_CLASS: Count = 2  # a model with fewer images is left out of the training

# ---- 02.feature_network_fine_tuning, 03.feature_extraction: the network ---------------------------
# "auto" ImageNet's, or the project's own start network where not to be had; "imagenet"; "random"; a .h5 file's path
PRETRAINED_WEIGHTS: Text = "auto"
# what the network takes for black and white: "-1..1" (ImageNet), "0..1"; "auto" asks the weights
INPUT_RANGE: Literal["auto", "-1..1", "0..1"] = "auto"
# pixels per side of the network's input; time and memory grow with its square
IMAGE_SIZE: Annotated[int, between(75, 1024)] = 128
# cut away white ground around the product, so that its size in the photograph does not matter
CROP_TO_PRODUCT: bool = True
# "mixed0" (early) to "mixed10" (last); "auto": the best one on the labelled images
FEATURE_LAYER: Literal["auto", Block] = "auto"
# of the layer's maps: "average", "max", "gem" (generalised mean), "concat" (averages and maxima side by side);
# "auto": the start network's own, else the best of the first three on labelled images
POOLING: Literal["auto", "average", "max", "gem", "concat"] = "auto"
# "float32", "bfloat16"; "auto": bfloat16 where that is fast and the features stay the same
COMPUTE_DTYPE: Literal["auto", "float32", "bfloat16"] = "auto"

# ---- 02.feature_network_fine_tuning --------------------------------------------------------------
# classifier trained on top: "cosine" (normalised features and weights), "softmax" (plain)
HEAD: Literal["cosine", "softmax"] = "cosine"
# block below the classifier, "mixed0" to "mixed10"; features come from it or an earlier one
HEAD_LAYER: Literal["auto", Block] = "auto"
TEMPERATURE: PositiveShare = 0.05  # of the cosine head; smaller = sharper
LABEL_SMOOTHING: Annotated[float, between(0, 0.5)] = 0.1  # share of the target spread over the other models
# strength of the changes made to training images, 0 = none, 1 = like sellers' edits
AUGMENTATION: Annotated[float, between(0, 2)] = 1.0
# share of training images set on a random ground, where stage 01 wrote masks (SAVE_MASKS)
RANDOM_GROUND: Share = 0.2
HEAD_EPOCHS: Annotated[int, between(0, 1000)] = 1  # epochs that train the head alone
EPOCHS: Annotated[int, between(0, 10_000)] = 4  # epochs after that, with the layers from TRAIN_FROM_LAYER on
# "all", or the last block that stays as it is: "mixed0" to "mixed9"
TRAIN_FROM_LAYER: Literal["all", EarlierBlock] = "all"
LEARNING_RATE: PositiveShare = 0.0001  # highest learning rate; reached after WARMUP_EPOCHS, then falls to 0 by a cosine
WARMUP_EPOCHS: Annotated[int, between(0, 1000)] = 1  # epochs over which the learning rate rises from 0
WEIGHT_DECAY: Share = 0.0001  # of AdamW
TRAIN_BATCH_SIZE: Annotated[int, between(2, 1024)] = 32  # images per step
# weights are averaged over about as many epochs, which steadies them; 0 = not averaged
AVERAGED_EPOCHS: Annotated[float, between(0, 100)] = 1.0
# share of the models that are not trained on but judge each epoch
HELD_OUT_FRACTION: Annotated[float, between(0.05, 0.5)] = 0.25
PATIENCE: Count = 2  # epochs without a better score on the held-out models after which training ends
# how far features are shortened along what differs within a model; 0 = not; see doc/pipeline.md
WHITENING: Annotated[float, between(0, 0.9)] = 0.1
# then train again on all models, the held-out ones too, for as many epochs as were best; doubles the time
REFIT: bool = True

# ---- 03.feature_extraction -----------------------------------------------------------------------
# "fine-tuned" by stage 02; "pretrained" the initial weights (no labelled images needed); path of an .onnx file
FEATURE_NETWORK: Literal["fine-tuned", "pretrained"] | OnnxPath = "fine-tuned"
INPUT_MEAN: Text = "auto"  # of an .onnx file's input, "red, green, blue" in its range; "auto" asks the file, else 0
INPUT_DEVIATION: Text = "auto"  # what the input is divided by after that; "auto" asks the file, else 1
# features are the mean over views: "one" the image alone; "mirrored" its mirror image too, twice the time; "turned" its
# four quarter turns, four times the time: photographs that lie on their side lie with their model
FEATURE_VIEWS: Literal["one", "mirrored", "turned"] = "turned"
L2_NORMALIZE: bool = True  # features of length 1
EXTRACTION_BATCH_SIZE: Annotated[int, between(1, 4096)] = 64  # images per step

# ---- 04.clustering_som ---------------------------------------------------------------------------
# "links": clusters are communities of linked images, their number is predicted; "units": each unit of the map with its
# images is a cluster, as in the entry of 2019
CLUSTER_METHOD: Literal["links", "units"] = "links"
SOM_ROWS: Annotated[int, between(0, 1000)] = 0  # rows of units of the map; 0 = by the number of images
SOM_COLS: Annotated[int, between(0, 1000)] = 0  # columns of units of the map; 0 = by the number of images
# images for each unit of the map; the map grows with the data set
SOM_IMAGES_PER_UNIT: Annotated[float, between(1, 100)] = 3.0
# units of the map at most; keeps the time linear in the number of images
SOM_MAX_UNITS: Annotated[int, between(4, 40_000)] = 3600
# neighbours of a unit: "rectangular" 8, "hexagonal" 6
SOM_TOPOLOGY: Literal["rectangular", "hexagonal"] = "rectangular"
# weights before training: "pca" the plane of most variance, "sample" images drawn at random
SOM_INITIALISATION: Literal["pca", "sample"] = "pca"
SOM_EPOCHS: Annotated[int, between(1, 1000)] = 10  # passes over all images
N_CLUSTERS: CountOrZero = 0  # 0 = predicted; a number forces it
# number of clusters as a multiple of the predicted one; 1.5: half as many again
CLUSTER_GRANULARITY: Annotated[float, between(0.01, 100)] = 1.0
# images that fit nowhere: "own cluster" each, or in the "nearest" one; marked either way
OUTLIERS: Literal["own cluster", "nearest"] = "own cluster"
# name of an earlier data set whose clusters the images are put into, with the same ids; None = not
ASSIGN_TO: Dataset | None = None

# ---- 05.evaluation -------------------------------------------------------------------------------
# draws of the models for the 95 % intervals of the scores; 0 = no intervals
BOOTSTRAP_RESAMPLES: Annotated[int, between(0, 100_000)] = 1000

# ---- 06.visualization ----------------------------------------------------------------------------
# images in the t-SNE picture; of more, a sample stratified by cluster is drawn
TSNE_MAX_IMAGES: Annotated[int, Ge(10)] = 10_000
TSNE_PERPLEXITY: Annotated[float, between(2, 200)] = 30.0  # neighbours that t-SNE takes into account
# photographs on the contact sheet of a cluster, the medoid and the doubtful ones among them
CONTACT_SHEET_IMAGES: Annotated[int, between(1, 1000)] = 60
CONTACT_SHEETS_MAX: CountOrZero = 200  # contact sheets, of the largest clusters; 0 = none
# megabytes; upper limit for report.html; above it, thumbnails get smaller and then fewer
REPORT_MAX_MB: Annotated[float, between(1, 2000)] = 40.0
# pixels; side of a thumbnail in the report, where REPORT_MAX_MB allows it
REPORT_THUMBNAIL: Annotated[int, between(24, 256)] = 96
# result/D/clusters/<id>/ with the photographs of each cluster, or "none"
CLUSTER_FOLDERS: Literal["none", "hardlink", "symlink", "copy"] = "none"
# photographs in those folders: "raw_img" as they came, "img" background removed
CLUSTER_FOLDERS_FROM: Literal["raw_img", "img"] = "raw_img"
SPREADSHEET_BOM: bool = True  # byte order mark in clusters_spreadsheet.csv: Excel needs it to show Korean names right
PROJECTOR: bool = True  # write result/D/projector/ for the TensorFlow projector

# ---- original_src: the baseline ------------------------------------------------------------------
NUM_IMGS_PER_MODEL: Count = 70  # images that a model is taken to have: K = number of images / NUM_IMGS_PER_MODEL
# "auto" ImageNet's, where they can't be had random; "imagenet"; "random"; path of a .h5 file
BASELINE_WEIGHTS: Text = "auto"
BASELINE_IMAGE_SIZE: Annotated[int, between(32, 1024)] = 224  # pixels per side of MobileNetV2's input
# True: remove_dup_img.py moves repeated images to data/<DATASET>/baseline/duplicates/
BASELINE_MOVE_DUPLICATES: bool = False
