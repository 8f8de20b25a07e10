"""What a cluster with two slices of v5p-128 has: labels of its nodes, its pools, who may write."""

V5P = {"gke_tpu_accelerator": "tpu-v5p-slice", "gke_tpu_topology": "4x4x4"}
ACCOUNT = (
    "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/"
    "my-project.svc.id.goog/subject/ns/research/sa/trainer"
)
POOL = ("a", "ct5p-hightpu-4t", "4x4x4")
