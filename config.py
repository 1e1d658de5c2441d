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
N_JOBS = 0  # worker threads or processes, and on Linux cores used; 0 = all. Files are the same for any number
REDO = False  # True: do a stage again although its inputs and settings have not changed

# ---- 00.make_labels_true -------------------------------------------------------------------------
LABEL_FROM = "name"  # "name": by LABEL_PATTERN; "folder": the parent folder's name; "none": no labels are known
LABEL_PATTERN = r"^([^_]+)_[^_]+_[^_]+$"  # regular expression on the file name without suffix; group 1 is the label

# ---- make_sample_images --------------------------------------------------------------------------
SAMPLE_NAME = "sample"  # data sets drawn: raw_img/<SAMPLE_NAME> (new models), raw_img/<SAMPLE_NAME>_train (known)
SAMPLE_SEED = 0  # integer from 0; another seed draws another catalogue
SAMPLE_TRAIN_MODELS = 24  # known models; 0 = that data set is not drawn
SAMPLE_MODELS = 12  # new models; 0 = that data set is not drawn
SAMPLE_MIN_IMAGES = 15  # images of a model, at least
SAMPLE_MAX_IMAGES = 25  # images of a model, at most
SAMPLE_IMAGE_SIZE = 300  # pixels per side, 64 to 1024

# ---- 01.img_preprocess ---------------------------------------------------------------------------
BACKGROUND_METHOD = "auto"  # "auto" chooses; one way for all: "plain", "network", "grabcut", "sobel"; "none" copies
BACKGROUND_NETWORK = "auto"  # "auto": the one in pipeline/; path of an .onnx file by make_background_network.py
BACKGROUND_MIN_TRUST = 0.3  # 0..1; an image whose mask is trusted less keeps its background
SAVE_MASKS = False  # True: mask/<DATASET>/<name>.png beside the cleaned images

# ---- make_background_network ---------------------------------------------------------------------
MASK_DATASETS = "sample_train"  # folders of raw_img/ whose photographs have masks in mask_true/; commas between several
GROUND_DATASETS = None  # folders of raw_img/ whose photographs serve as grounds; None = none
COMPOSITES = 6000  # photographs composed from products and grounds
MASK_EPOCHS = 14  # passes over all of them

# ---- make_training_image_folders -----------------------------------------------------------------
MIN_IMAGES_PER_CLASS = 2  # a model with fewer images is left out of the training

# ---- 02.feature_network_fine_tuning, 03.feature_extraction: the network ---------------------------
PRETRAINED_WEIGHTS = "auto"  # "auto" ImageNet's, or random where not to be had; "imagenet"; "random"; a .h5 file's path
INPUT_RANGE = "auto"  # what the network takes for black and white: "-1..1" (ImageNet), "0..1"; "auto" asks the weights
IMAGE_SIZE = 128  # pixels per side of the network's input, 75 to 1024; time and memory grow with its square
CROP_TO_PRODUCT = True  # cut away white ground around the product, so that its size in the photograph does not matter
FEATURE_LAYER = "auto"  # "mixed0" (early) to "mixed10" (last); "auto": the best one on the labelled images
POOLING = "auto"  # of the layer's maps: "average", "max", "gem" (generalised mean); "auto": the best on labelled images
COMPUTE_DTYPE = "auto"  # "float32", "bfloat16"; "auto": bfloat16 where that is fast and the features stay the same

# ---- 02.feature_network_fine_tuning --------------------------------------------------------------
HEAD = "cosine"  # classifier trained on top: "cosine" (normalised features and weights), "softmax" (plain)
HEAD_LAYER = "auto"  # block below the classifier, "mixed0" to "mixed10"; features come from it or an earlier one
TEMPERATURE = 0.05  # of the cosine head, above 0 to 1; smaller = sharper
LABEL_SMOOTHING = 0.1  # 0 to 0.5: share of the target spread over the other models
AUGMENTATION = 1.0  # strength of the changes made to training images, 0 (none) to 2; 1 = like sellers' edits
RANDOM_GROUND = 0.2  # 0..1: share of training images set on a random ground, where stage 01 wrote masks (SAVE_MASKS)
HEAD_EPOCHS = 1  # epochs that train the head alone
EPOCHS = 20  # epochs after that, with the layers from TRAIN_FROM_LAYER on
TRAIN_FROM_LAYER = "all"  # "all", or the last block that stays as it is: "mixed0" to "mixed9"
LEARNING_RATE = 0.0003  # highest learning rate; reached after WARMUP_EPOCHS, then falls to 0 by a cosine
WARMUP_EPOCHS = 1  # epochs over which the learning rate rises from 0
WEIGHT_DECAY = 0.0001  # of AdamW
TRAIN_BATCH_SIZE = 32  # images per step, 2 to 1024
AVERAGED_EPOCHS = 1.0  # weights are averaged over about as many epochs, 0 to 100, which steadies them; 0 = not averaged
HELD_OUT_FRACTION = 0.25  # share of the models that are not trained on but judge each epoch, 0.05 to 0.5
PATIENCE = 6  # epochs without a better score on the held-out models after which training ends
WHITENING = 0.1  # 0 (off) to 0.9: how far features are shortened along what differs within a model; see doc/pipeline.md
REFIT = True  # then train again on all models, the held-out ones too, for as many epochs as were best; doubles the time

# ---- 03.feature_extraction -----------------------------------------------------------------------
FEATURE_NETWORK = "fine-tuned"  # "fine-tuned" by stage 02; "pretrained" the initial weights (no labelled images needed)
MIRROR_AVERAGE = True  # mean of the features of an image and of its mirror image; doubles the time
L2_NORMALIZE = True  # features of length 1
EXTRACTION_BATCH_SIZE = 64  # images per step, 1 to 4096
SAVE_TSV = False  # True: features.tsv, features_metadata.tsv and features_sprite.png for the TensorFlow projector

# ---- 04.clustering_som ---------------------------------------------------------------------------
SOM_IMAGES_PER_UNIT = 3.0  # images for each unit of the map, 1 to 100; the map grows with the data set
SOM_MAX_UNITS = 3600  # units of the map at most, 4 to 40000; keeps the time linear in the number of images
SOM_TOPOLOGY = "rectangular"  # neighbours of a unit: "rectangular" 8, "hexagonal" 6
SOM_INITIALISATION = "pca"  # weights before training: "pca" the plane of most variance, "sample" images drawn at random
SOM_EPOCHS = 10  # passes over all images
N_CLUSTERS = 0  # 0 = predicted; a number forces it
CLUSTER_GRANULARITY = 1.0  # number of clusters as a multiple of the predicted one, 0.01 to 100; 1.5: half as many again
OUTLIERS = "own cluster"  # images that fit nowhere: "own cluster" each, or in the "nearest" one; marked either way
ASSIGN_TO = None  # name of an earlier data set whose clusters the images are put into, with the same ids; None = not

# ---- 05.evaluation -------------------------------------------------------------------------------
BOOTSTRAP_RESAMPLES = 1000  # draws of the models for the 95 % intervals of the scores; 0 = no intervals

# ---- 06.visualization ----------------------------------------------------------------------------
TSNE_MAX_IMAGES = 10_000  # images in the t-SNE picture; of more, a sample stratified by cluster is drawn
TSNE_PERPLEXITY = 30.0  # neighbours that t-SNE takes into account, 2 to 200
CONTACT_SHEET_IMAGES = 60  # photographs on the contact sheet of a cluster, the medoid and the doubtful ones among them
CONTACT_SHEETS_MAX = 200  # contact sheets, of the largest clusters; 0 = none
REPORT_MAX_MB = 40.0  # megabytes; upper limit for report.html; above it, thumbnails get smaller and then fewer
REPORT_THUMBNAIL = 96  # pixels; side of a thumbnail in the report, where REPORT_MAX_MB allows it
CLUSTER_FOLDERS = "none"  # result/D/clusters/<id>/: "none", "hardlink", "symlink" or "copy" of the photographs
CLUSTER_FOLDERS_FROM = "raw_img"  # photographs in those folders: "raw_img" as they came, "img" background removed
SPREADSHEET_BOM = True  # byte order mark in clusters_spreadsheet.csv: Excel needs it to show Korean names right
PROJECTOR = True  # write result/D/projector/ for the TensorFlow projector

# ---- original_src: the baseline ------------------------------------------------------------------
NUM_IMGS_PER_MODEL = 70  # images that a model is taken to have: K = number of images / NUM_IMGS_PER_MODEL
BASELINE_WEIGHTS = "auto"  # "auto" ImageNet's, where they can't be had random; "imagenet"; "random"; path of a .h5 file
BASELINE_IMAGE_SIZE = 224  # pixels per side of MobileNetV2's input, 32 to 1024
BASELINE_MOVE_DUPLICATES = False  # True: remove_dup_img.py moves repeated images to data/<DATASET>/baseline/duplicates/
